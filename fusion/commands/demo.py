"""`fusion demo`: a shop to look at, started by one command."""

from __future__ import annotations

import argparse

from fusion.commands.parser import Command, add_path


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "--store", default="amazon_go", help="store folder, or name of an example store (amazon_go)")
    parser.add_argument("--minutes", type=float, default=30.0, help="simulated minutes (30)")
    parser.add_argument("--shoppers", type=int, default=0, help="simulated shoppers (seven a minute)")
    parser.add_argument("--lead", type=float, default=3.0, metavar="MINUTES", help="of them, that pass at once (3)")
    parser.add_argument("--speed", type=float, default=1.0, help="times the pace of a real shop (1)")
    parser.add_argument("--port", type=int, default=0, help="port of the console (a free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")


def _run(arguments: argparse.Namespace) -> int:
    from fusion.commands.signals import stop_signals
    from fusion.errors import FusionError
    from fusion.example_stores.catalogue import store_folder
    from fusion.runner.demo import Demonstration, DemoSettings

    if arguments.minutes <= 0 or not 0 <= arguments.lead < arguments.minutes or arguments.shoppers < 0:
        raise FusionError("--minutes must be above 0, --lead less than that, and --shoppers not negative")
    settings = DemoSettings(
        store=store_folder(arguments.store),
        minutes=arguments.minutes,
        shoppers=arguments.shoppers or round(7 * arguments.minutes),
        lead_minutes=arguments.lead,
        speed=arguments.speed,
        port=arguments.port,
        browser=not arguments.no_browser,
    )
    with stop_signals() as stop, Demonstration(settings) as demonstration:
        return demonstration.run(stop)


DEMO = Command(
    "demo",
    "Show a simulated shop in the browser: people on the floor, receipts, and visits that wait for a decision.",
    ("", "--store welife --speed 4 --no-browser"),
    {0: "ended by Ctrl-C or SIGTERM", 1: "a part of it ended by itself; its last lines say why"},
    _declare,
    _run,
)
