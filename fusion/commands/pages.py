"""What commands that serve pages have in common: where they listen, and who may connect."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.parser import add_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def declare_listening(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the options about addresses and certificates. port: the default one."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=port, help=f"port to listen on ({port})")
    parser.add_argument("--name", action="append", default=[], help="a further host name of the pages; may be repeated")
    parser.add_argument(
        "--proxy", metavar="ADDRESS", help="address of a proxy whose X-Forwarded-For is believed (none is)"
    )
    add_path(parser, "--certificate", help="TLS certificate; required where other machines may connect")
    add_path(parser, "--key", help="private key of the certificate")


def require_certificate(arguments: argparse.Namespace) -> None:
    """Raise FusionError where other machines could connect without encryption."""
    from fusion.errors import FusionError

    if arguments.host not in ("127.0.0.1", "localhost", "::1") and not arguments.certificate:
        raise FusionError(f"--host {arguments.host} lets other machines connect; pass --certificate and --key as well")


def address_of(arguments: argparse.Namespace) -> str:
    """Where the pages are served, such as http://127.0.0.1:8321."""
    scheme = "https" if arguments.certificate else "http"
    return f"{scheme}://{arguments.host}:{arguments.port}"


def serve_pages(arguments: argparse.Namespace, app: ASGIApp, names: str) -> None:
    """Print the address and answer requests until Ctrl-C. names: of the stores, for that line.

    Raises:
        FusionError: the port is taken, or the certificate cannot be used.
    """
    from fusion.show.web.serving import serve

    print(f"{names}: {address_of(arguments)}/ (Ctrl-C ends it)", flush=True)
    certificate, key = (Path(name) if name else None for name in (arguments.certificate, arguments.key))
    serve(app, arguments.host, arguments.port, certificate=certificate, key=key, proxy=arguments.proxy)
