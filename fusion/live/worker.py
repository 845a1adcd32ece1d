"""One process of `serve`: a thread for each of its stores, and a pipe to the supervisor.

    source --(thread)--> Intake --(thread)--> Engine --> Ledger, evidence.jsonl, live.sock, Outbox (warnings)
                                                 |
                                                 every few seconds of data time: Checkpoint, then the goods that moved
                                                 before it --> Outbox

A process may be killed at any instant; the next one resumes from the checkpoint. Results are committed to the books
before the snapshot that covers them, so resuming posts them again, and the books ignore duplicates. Goods reach the
chain's outbox after the snapshot, since nothing that a snapshot holds is ever attributed differently later.

Data lost on the way to the engine, in a restart or under overload, show in the times of each stream (`gaps`). Up to
GAP_INTACT_S beyond a stream's usual step count as a short occlusion. After more, every visit that the gap may affect
goes to review: of the people who were inside, and of those who entered afterwards while a scan from before might have
been taken for theirs. The engine continues either way.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fusion.errors import FusionError
from fusion.files.private import LOCK_FILE, OTHERS, lock_holder, locked, private_folder, tighten
from fusion.live.causes import common_cause
from fusion.live.clock import SYSTEM_CLOCK, Clock
from fusion.live.config import ServeConfig
from fusion.live.loop import Control, StoreLoop
from fusion.live.pump import FAILURE_MAX
from fusion.store.models import Store

STATUS_S = 0.5
# The previous process may need this long for its last snapshot.
LOCK_WAIT_S = 30.0
JOIN_MAX_S = 20.0
# Exit codes of a process: a store has failed; a store is to be started again with another layout.
FAILED, RESTART = 3, 4


@contextlib.contextmanager
def store_lock(path: Path, stopping: threading.Event, clock: Clock = SYSTEM_CLOCK) -> Iterator[bool]:
    """Hold the lock of a store's folder until the block ends. Yields False if `stopping` was set before it was free.

    Raises:
        FusionError: another process serves the store.
    """
    deadline_s = clock.monotonic_s() + LOCK_WAIT_S
    while True:
        with locked(path) as held:
            if held:
                yield True
                return
        if clock.wait(stopping, 0.05):
            yield False
            return
        if clock.monotonic_s() > deadline_s:
            holder = lock_holder(path)
            number = "" if holder is None else f", number {holder}"
            raise FusionError(f"{path}: another process serves this store{number}")


class StoreThread:
    """One store, served by a thread.

    Attributes:
        failure: why it ended early; "" unless it did.
        common: what of its surroundings is to blame for that, as `common_cause` has it; "" where nothing is.
    """

    def __init__(self, config: ServeConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        self.failure = self.common = ""
        self._config, self._clock = config, clock
        self._control = Control()
        self._loop: StoreLoop | None = None
        self._messages: list[str] = []  # from before the loop
        self._thread = threading.Thread(target=self._run, name=f"store {config.store.id}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after a last snapshot."""
        self._control.stopping.set()
        if self._loop is not None:
            self._loop.stop_waiting()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def change(self, store: Store) -> None:
        """Adopt a store whose folder has changed."""
        self._control.change(store)

    def reread(self) -> None:
        """Read files of other programs again: keys, badges, customers."""
        self._control.rereads.set()

    @property
    def ended(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    @property
    def over(self) -> bool:
        """Whether the source has ended and everything is in the books."""
        return self._loop is not None and self._loop.over

    @property
    def restart(self) -> bool:
        """Whether the store is to be started again, with another layout."""
        return self._loop is not None and self._loop.restart

    def status(self) -> dict[str, Any]:
        """State as plain data, for the supervisor; removes the messages that it returns."""
        loop = self._loop
        state: dict[str, Any] = {"beat": 0, "over": False, "messages": []} if loop is None else loop.status()
        before, self._messages = self._messages, []
        messages = [*before, *state["messages"]]
        return {
            **state, "messages": messages, "failure": self.failure, "common": self.common, "ready": loop is not None
        }  # fmt: skip

    def _run(self) -> None:
        try:
            self.run()
        except FusionError as error:
            self.failure, self.common = str(error)[:FAILURE_MAX], common_cause(error)
        except Exception as error:
            self.common = common_cause(error)
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            self.failure = f"{type(error).__name__}: {error} ({where})"[:FAILURE_MAX]

    def run(self) -> None:
        """Serve the store in the calling thread. Raises whatever ends it early."""
        folder, stopping = self._config.folder, self._control.stopping
        private_folder(folder)
        if (line := tighten(folder)) is not None:
            self._messages.append(line)
        with store_lock(folder / LOCK_FILE, stopping, self._clock) as held:
            if held:
                with StoreLoop.opened(self._config, self._control, clock=self._clock) as loop:
                    self._loop = loop
                    loop.run()


def limit_memory(memory_max_bytes: int) -> None:
    """Deny this process more than twice its limit of memory.

    The supervisor ends a process above its limit; one that grows faster than the supervisor looks fails alone.
    """
    with contextlib.suppress(OSError, ValueError):
        status = Path("/proc/self/status").read_text().split("VmData:", 1)[1]
        wanted = (int(status.split()[0]) << 10) + 2 * memory_max_bytes
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def work(configs: list[ServeConfig], pipe: Connection, memory_max_bytes: int) -> None:
    """Serve stores until the supervisor says stop or is gone, or until their sources end; then exit the process."""
    limit_memory(memory_max_bytes)
    os.umask(OTHERS)  # Whatever a store keeps says who bought what.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the supervisor decides when.
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threads = {config.store.id: StoreThread(config) for config in configs}
    for thread in threads.values():
        thread.start()
    with contextlib.suppress(EOFError, OSError):
        while not stopping.is_set():
            pipe.send({name: thread.status() for name, thread in threads.items()})
            if all(thread.ended for thread in threads.values()):
                break
            if any(thread.failure or thread.restart for thread in threads.values()):
                break
            if pipe.poll(STATUS_S):
                command, *arguments = pipe.recv()
                if command == "stop":
                    break
                if command == "reread":
                    for thread in threads.values():
                        thread.reread()
                if command == "store":
                    threads[arguments[0].id].change(arguments[0])
    for thread in threads.values():
        thread.stop()
    for thread in threads.values():
        thread.join(JOIN_MAX_S)
    failed = any(thread.failure for thread in threads.values())
    restart = any(thread.restart for thread in threads.values())
    with contextlib.suppress(OSError):
        pipe.send({name: thread.status() for name, thread in threads.items()})
        pipe.close()
    # Threads that hang are not waited for.
    os._exit(FAILED if failed else RESTART if restart else 0)
