"""A stand-in for a payment provider behind HTTP, to try a store out: `python -m fusion.runner.provider_stub`.

It speaks the interface of `fusion.money.providers.HttpProvider` on this machine alone, approves every authorisation,
keeps its own accounts in memory, and prints each step. No money moves.
"""

from __future__ import annotations

import argparse
import hmac
import json
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fusion.errors import FusionError, terminal_text
from fusion.files.secrets import secret_of
from fusion.money.providers import Answer, InProcessProvider, PaymentError

# A request of this interface has a few short fields.
_BODY_BYTES_MAX = 16 * 1024
STEPS = {"authorise": ("token", "amount", "currency"), "capture": ("authorisation", "amount"),
         "release": ("authorisation",), "refund": ("capture", "amount")}  # fmt: skip
_LOOK_UP = ("step", "key", "of")


class ProviderStub:
    """The server, in threads of this process until it is closed.

    Attributes:
        accounts: what was authorised, captured and refunded.
        port: where it listens.
    """

    def __init__(self, secret: str, port: int = 0, report: Callable[[str], object] = lambda line: None) -> None:
        """Listen on 127.0.0.1.

        Args:
            secret: the bearer token that requests must carry.
            port: 0 for any free one.
            report: takes a line for each step.

        Raises:
            OSError: the port is in use.
        """
        self.accounts = InProcessProvider()
        self._authorization, self._report = f"Bearer {secret}", report
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30  # seconds; a client that says nothing keeps no thread

            def do_POST(self) -> None:
                """Answer one step."""
                n_bytes = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(n_bytes) if n_bytes <= _BODY_BYTES_MAX else b""
                status, fields = stub._answered(self.path, dict(self.headers), body)
                text = json.dumps(fields).encode()
                self.send_response_only(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """Log nothing; `report` has a line for each step."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="provider stub", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answered(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and fields of the answer to a request."""
        if not hmac.compare_digest(headers.get("Authorization", "").encode(), self._authorization.encode()):
            return 401, {"reason": "wrong secret"}
        step = path.rsplit("/", 1)[-1]
        try:
            fields = json.loads(body)
            if step == "look_up":
                answer = self.accounts.look_up(*(fields[name] for name in _LOOK_UP))
                return 200, {"found": False} if answer is None else {"found": True, **_fields(answer)}
            key = json.loads(headers["Idempotency-Key"])
            answer = getattr(self.accounts, step)(key, *(fields[name] for name in STEPS[step]))
        except PaymentError as error:
            return 422, {"reason": str(error)}
        except (ValueError, KeyError, TypeError, RecursionError):
            return 400, {"reason": "want the fields of the step, and an Idempotency-Key"}
        amount = f" {fields['amount']}" if "amount" in fields else ""
        self._report(f"{step}{amount}: {answer.reference if answer.approved else answer.reason}")
        return 200 if answer.approved else 402, _fields(answer)


def _fields(answer: Answer) -> dict[str, Any]:
    fields = {"approved": answer.approved, "reference": answer.reference, "reason": answer.reason}
    return fields if answer.amount is None else {**fields, "amount": answer.amount}


def main(argv: list[str] | None = None) -> int:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m fusion.runner.provider_stub", description=__doc__)
    parser.add_argument("--secret-file", type=Path, required=True, help="the store's secret, mode 0600")
    parser.add_argument("--port", type=int, default=8099)
    arguments = parser.parse_args(argv)
    try:
        secret = secret_of(file=arguments.secret_file, what="the provider's secret")
        stub = ProviderStub(secret, arguments.port, lambda line: print(terminal_text(line), flush=True))
    except (FusionError, OSError) as error:
        print(f"provider_stub: {error}", file=sys.stderr)
        return 2
    print(f"a stand-in for a payment provider listens on http://127.0.0.1:{stub.port}", flush=True)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # Shells let what runs in the background ignore Ctrl-C.
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    stub.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
