"""A payment provider behind HTTP that cannot be trusted, in a process of its own that may be killed at any instant.

It is slow, loses requests and answers, answers with references that it gave before, and keeps its keys for seconds.
What it carries out stands in its journal before it is answered, as a real provider's accounts survive its servers:
after a restart, and for whoever compares the books, the journal is read again. `bench shops` starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.endurance.kills import provider_server
from fusion.money.providers import Answer, InProcessProvider, PaymentError, SeededFaults, UnknownOutcome
from fusion.money.providers.provider import Terms

# Shares of requests.
FAULTS = {"lost_before": 0.05, "lost_after": 0.1, "repeat": 0.05}
# How long an answer takes, seconds: an exponential distribution, cut off at what an acquirer's worst minute shows.
SLOW_MEAN_S, SLOW_MAX_S = 0.3, 30.0
# It forgets its keys as early as it promises; a day of outages is then seen within minutes.
TERMS = Terms(keys_kept_s=20.0)
# In the journal's folder: while this file exists, there are no faults and no waits.
CALM = "calm"


class Accounts:
    """The provider's accounts of each store, as its journal has them.

    Attributes:
        by_store: the accounts by store.
        now_ns: the present instant of all accounts.
    """

    def __init__(self, journal: Path, until_ns: int = 2**63) -> None:
        """Read a journal, up to an instant; a line that a kill cut off was not carried out."""
        self.now_ns, self._fault = 0, None
        self.by_store: dict[str, InProcessProvider] = defaultdict(
            lambda: InProcessProvider(lambda step, key: self._fault, terms=TERMS, clock_ns=lambda: self.now_ns)
        )
        self.n_lines = 0
        if journal.exists():
            for line in journal.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    request = json.loads(line)
                    if request["t_ns"] > until_ns:
                        break
                    with contextlib.suppress(PaymentError, UnknownOutcome):
                        self.carry_out(request)

    def carry_out(self, request: dict[str, Any]) -> Any:
        """Do what a line of the journal says. Raises what the provider raises."""
        self.now_ns, self._fault = request["t_ns"], request["fault"]
        self.n_lines += 1
        try:
            return getattr(self.by_store[request["store"]], request["step"])(request["key"], **request["body"])
        finally:
            self._fault = None


class Server:
    """Answers POST /STORE/STEP on this machine, as `fusion.money.providers.HttpProvider` asks."""

    def __init__(self, folder: Path, port: int, seed: int) -> None:
        """Listen. folder: of the journal."""
        self._folder, self._lock = folder, threading.Lock()
        self._accounts = Accounts(folder / "journal")
        # Another sequence after each restart.
        self._random = random.Random(f"{seed} {self._accounts.n_lines}")
        self._faults = SeededFaults(self._random.getrandbits(32), **FAULTS)
        self._journal = open(folder / "journal", "a", encoding="utf-8")  # noqa: SIM115 open as long as the process
        # What a kill cut off ends its line.
        self._journal.write("\n" if self._journal.tell() else "")
        self.http = provider_server(self.answered, port)

    def answered(self, path: str, key: str, body: dict[str, Any]) -> Answer | None:
        """The answer to a request; None where what is looked up is not known. Raises what the provider raises."""
        store, step = path.rsplit("/", 2)[-2:]
        calm = (self._folder / CALM).exists()
        if not calm:
            time.sleep(min(self._random.expovariate(1.0 / SLOW_MEAN_S), SLOW_MAX_S))
        with self._lock:
            if step == "look_up":
                return self._accounts.by_store[store].look_up(**body)
            fault = None if calm else self._faults(step, key)  # type: ignore[arg-type]
            request = {"store": store, "step": step, "key": key, "body": body, "fault": fault}
            request["t_ns"] = time.time_ns()
            self._journal.write(json.dumps(request) + "\n")
            self._journal.flush()
            answer: Answer = self._accounts.carry_out(request)
            return answer


def main() -> None:
    """Serve until killed: FOLDER PORT SEED."""
    folder, port, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.umask(0o077)
    Server(folder, port, seed).http.serve_forever()


if __name__ == "__main__":
    main()
