"""A store's loop without threads and without waiting: each step is a call, and the clock moves only by hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.endurance import serve as bench
from fusion.errors import FusionError
from fusion.files.atomic import replace_file
from fusion.files.recordings import Recording
from fusion.live.clock import ManualClock
from fusion.live.config import ServeConfig
from fusion.live.intake import BATCH_MAX
from fusion.live.loop import Control, StoreLoop
from fusion.live.scan_log import WriteFile
from fusion.live.sources import PacedSource, Source, paced_source
from fusion.observations import Observation
from fusion.results import Receipt
from fusion.store.models import Store

# Observations between two steps of a loop that follows a paced source: fewer than an overload.
STRIDE = 16


class Day(NamedTuple):
    """A store, its observations, and the receipts by visit of a run without interruption."""

    store: Store
    observations: list[Observation]
    receipts: dict[str, Receipt]


class InlineExecutor(Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class SteppedStore:
    """A store's loop, driven by calls.

    Attributes:
        loop: the loop.
        messages: for the operator, so far.
    """

    def __init__(
        self, config: ServeConfig, clock: ManualClock | None = None, write_file: WriteFile = replace_file
    ) -> None:
        config.folder.mkdir(parents=True, exist_ok=True)
        self.messages: list[str] = []
        self._folder = config.folder
        self._control = Control()
        self._stack = ExitStack()
        self.loop = self._stack.enter_context(
            StoreLoop.opened(
                config,
                self._control,
                clock=clock or ManualClock(),
                writer=InlineExecutor(),
                write_file=write_file,
                threads=False,
            )
        )

    def status(self) -> dict[str, Any]:
        status = self.loop.status()
        self.messages += status["messages"]
        return status

    def give(self, observations: Iterable[Observation]) -> None:
        """Let observations arrive, and work them off."""
        for i, observation in enumerate(observations, 1):
            self.loop.pump.accept(observation)
            if i % BATCH_MAX == 0:
                self.loop.step()
        while len(self.loop.intake):
            self.loop.step()

    def follow_source(self, until: Callable[[StoreLoop], bool] = lambda loop: False) -> None:
        """Give what the source gives, at its pace, until a condition holds or it ends."""
        for i, observation in enumerate(self.loop.pump.source, 1):
            self.loop.pump.accept(observation)
            if i % STRIDE == 0:
                self.loop.step()
                if until(self.loop):
                    return

    def change(self, store: Store) -> None:
        self._control.change(store)

    def reread(self) -> None:
        """As a supervisor asks for on SIGHUP."""
        self._control.rereads.set()

    def end(self) -> None:
        """The source has ended: conclude, and close."""
        self.loop.intake.end()
        while self.loop.step():
            pass
        self.loop.finish()
        self.status()
        self._stack.close()

    def stop(self) -> None:
        """Stop after a last snapshot, and close."""
        self._control.stopping.set()
        self.loop.finish()
        self.status()
        self._stack.close()

    def kill(self, copy: Path) -> None:
        """Copy the folder as a kill at this instant would leave it."""
        self.status()
        shutil.copytree(self._folder, copy, ignore=shutil.ignore_patterns("live.sock"))
        self._stack.close()


def quiet_config(store: Store, folder: Path, **options: Any) -> ServeConfig:
    """A store whose observations a test gives by hand."""
    return ServeConfig(store, folder, folder, "python:live.stepping:quiet", {}, 0.0, **options)


def recorded_config(recording: Path, folder: Path, **options: Any) -> ServeConfig:
    """A store that is served from a recording, all of which is sent again after a restart unless options differ."""
    store = Recording(recording).store
    options = {"speed": 30.0, "kept_s": 1e5, **options}
    return ServeConfig(store, folder, folder, f"recording:{recording}", options, 0.0)


def killed(store: Store, folder: Path, observations: Iterable[Observation], copy: Path, **options: Any) -> None:
    """Serve observations, then leave in `copy` what a kill would leave."""
    stepped = SteppedStore(quiet_config(store, folder, **options))
    stepped.give(observations)
    stepped.kill(copy)


def ended(store: Store, folder: Path, observations: Iterable[Observation]) -> tuple[SteppedStore, bench.Booked]:
    """Serve observations to their end. Returns the store and what its books hold."""
    stepped = SteppedStore(quiet_config(store, folder))
    stepped.give(observations)
    stepped.end()
    return stepped, bench.booked(folder, store)


# ---- sources for `python:live.stepping:NAME` -------------------------------------------------------------------------


class _Quiet(Source):
    """Gives nothing and does not end."""

    @property
    def behind(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Observation]:
        yield from ()

    def stop(self) -> None:
        pass


class _Failing(_Quiet):
    """Fails as a broker does that refuses the engine."""

    def __iter__(self) -> Iterator[Observation]:
        raise FusionError("the broker is gone")
        yield


class _Patient(_Quiet):
    """Waits for the engine, however slow the machine is, and never drops anything."""

    def __init__(self, paced: PacedSource) -> None:
        self._paced = paced

    @property
    def catch_up_max_s(self) -> float:
        return float("inf")

    def __iter__(self) -> Iterator[Observation]:
        return iter(self._paced)

    def stop(self) -> None:
        self._paced.stop()


def quiet(config: ServeConfig, since_ns: int) -> Source:
    return _Quiet()


def failing(config: ServeConfig, since_ns: int) -> Source:
    return _Failing()


def patient(config: ServeConfig, since_ns: int) -> Source:
    """The recording that the option of this name says, at its pace as long as the engine keeps up."""
    options = {name: value for name, value in config.options.items() if name != "recording"}
    source = f"recording:{config.options['recording']}"
    return _Patient(paced_source(replace(config, source=source, options=options), since_ns))


class _Stopped(_Quiet):
    """Raises an error of the operating system until a file exists, then is patient."""

    def __init__(self, number: int, mended: Path, then: _Patient) -> None:
        self._number, self._mended, self._then = number, mended, then

    @property
    def behind(self) -> bool:
        return self._then.behind

    @property
    def catch_up_max_s(self) -> float:
        return float("inf")

    def __iter__(self) -> Iterator[Observation]:
        if not self._mended.exists():
            raise OSError(self._number, os.strerror(self._number))
        return iter(self._then)

    def stop(self) -> None:
        self._then.stop()


def stopped(config: ServeConfig, since_ns: int) -> Source:
    """The recording, once the file of the option `mended` exists; until then the error number of the option `error`."""
    options = {name: value for name, value in config.options.items() if name not in ("error", "mended")}
    then = patient(replace(config, options=options), since_ns)
    assert isinstance(then, _Patient)
    return _Stopped(config.options["error"], Path(config.options["mended"]), then)
