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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fusion.money.providers import InProcessProvider, PaymentError, SeededFaults, UnknownOutcome
from fusion.money.providers.provider import CannotLookUp, Terms

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

    def __init__(self, journal: Path) -> None:
        """Read a journal; a line that a kill cut off was not carried out."""
        self.now_ns, self._fault = 0, None
        self.by_store: dict[str, InProcessProvider] = defaultdict(
            lambda: InProcessProvider(lambda step, key: self._fault, terms=TERMS, clock_ns=lambda: self.now_ns)
        )
        self.n_lines = 0
        if journal.exists():
            for line in journal.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    request = json.loads(line)
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
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                store, step = self.path.rsplit("/", 2)[-2:]
                answered = server.answered(store, step, self.headers.get("Idempotency-Key", "null"), body)
                if answered is None:
                    self.close_connection = True
                    return
                text = json.dumps(answered[1]).encode()
                self.send_response(answered[0])
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError, ValueError):  # the client was killed while it spoke
                    super().handle()

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True

    def answered(self, store: str, step: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Status and fields of an answer; None: no answer."""
        calm = (self._folder / CALM).exists()
        if not calm:
            time.sleep(min(self._random.expovariate(1.0 / SLOW_MEAN_S), SLOW_MAX_S))
        try:
            with self._lock:
                if step == "look_up":
                    answer = self._accounts.by_store[store].look_up(body["step"], body["key"], body["of"])
                else:
                    fault = None if calm else self._faults(step, key)  # type: ignore[arg-type]
                    request = {"store": store, "step": step, "key": json.loads(key), "body": body, "fault": fault}
                    request["t_ns"] = time.time_ns()
                    self._journal.write(json.dumps(request) + "\n")
                    self._journal.flush()
                    answer = self._accounts.carry_out(request)
        except UnknownOutcome:
            return None
        except CannotLookUp:
            return 404, {}
        except PaymentError as error:
            return 422, {"reason": str(error)}
        if answer is None:
            return 200, {"found": False}
        fields = {"found": True, "approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
        return 200 if answer.approved or step == "look_up" else 402, fields


def main() -> None:
    """Serve until killed: FOLDER PORT SEED."""
    folder, port, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.umask(0o077)
    Server(folder, port, seed).http.serve_forever()


if __name__ == "__main__":
    main()
