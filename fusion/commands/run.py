"""`fusion run`: one store from door to receipt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.commands.parser import Command, add_path

if TYPE_CHECKING:
    from fusion.runner.settings import LiveSettings


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(
        parser, "recording", nargs="?", type=Path, help="folder of a recording to replay; without one, simulate a store"
    )
    add_path(
        parser, "--out", type=Path, default=Path("out"), help="folder for results, report.html and ledger.sqlite (out)"
    )
    add_path(
        parser, "--store", help="store folder, or name of an example store (a built-in shop of 8 cameras, 80 plates)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation (1)")
    parser.add_argument("--minutes", type=float, help="simulated minutes (5, or those of the store's example.toml)")
    parser.add_argument("--shoppers", type=int, help="simulated shoppers (8, or those of example.toml)")
    add_path(parser, "--ledger", help="books to use: a path or URL (a new OUT/ledger.sqlite)")
    add_path(parser, "--vault", type=Path, help="file for the vault beside books in PostgreSQL")
    parser.add_argument("--smtp", metavar="HOST:PORT", help="mail server for receipts, where customers want them")
    parser.add_argument("--console", action="store_true", help="publish the run to consoles through OUT/live.sock")
    add_path(parser, "--view", type=Path, metavar="OUT.RRD", help="Rerun recording to write (extra `view`)")
    add_path(parser, "--mcap", type=Path, metavar="OUT.MCAP", help="MCAP file to write for Foxglove (extra `mcap`)")
    parser.add_argument(
        "--early", action=argparse.BooleanOptionalAction,
        help="show receipts within a second, before late messages are in, in two to three times the time (live: yes)",
    )  # fmt: skip
    live = parser.add_argument_group("live store")
    live.add_argument("--mqtt", metavar="BROKER", help="HOST:PORT, mqtt://USER@HOST:PORT, or mqtts://... for TLS")
    add_path(live, "--mqtt-password-file", type=Path, help="holds the password ($FUSION_MQTT_PASSWORD)")
    add_path(live, "--mqtt-ca", type=Path, help="certificate authorities to trust (the system's)")
    add_path(live, "--record", type=Path, metavar="DIR", help="record the observations that are used in a new folder")
    add_path(live, "--till", type=Path, metavar="TILL.TOML", help="payments, gates, mail and books of the store")
    add_path(live, "--code-key", type=Path, help="public key of the server that signs QR codes, PEM")
    add_path(live, "--staff-list", type=Path, help="tokens that let staff in, one a line")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--fast", action="store_true", help="as fast as possible (default)")
    pace.add_argument("--realtime", action="store_true", help="at the pace of the data")
    parser.add_argument("--speed", type=float, default=1.0, help="with --realtime: this many times the pace (1)")
    parser.add_argument(
        "--lead", type=float, default=0.0, metavar="MINUTES", help="with --realtime: minutes that pass at once (0)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from fusion.errors import FusionError
    from fusion.example_stores.catalogue import store_folder
    from fusion.runner.settings import RunSettings

    fault = _fault(arguments)
    if fault is not None:
        raise FusionError(fault)
    settings = RunSettings(
        out=arguments.out,
        recording=arguments.recording,
        store=store_folder(arguments.store) if arguments.store else None,
        seed=arguments.seed,
        minutes=arguments.minutes,
        shoppers=arguments.shoppers,
        ledger=arguments.ledger,
        vault=arguments.vault,
        smtp=arguments.smtp,
        console=arguments.console,
        view=arguments.view,
        mcap=arguments.mcap,
        realtime=arguments.realtime,
        speed=arguments.speed,
        lead_s=60.0 * arguments.lead,
        early=arguments.early,
        till=arguments.till,
        live=_live_settings(arguments),
    )
    from fusion.runner.runner import run_store

    return run_store(settings)


def _fault(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the options together."""
    if arguments.recording and arguments.store:
        return "--store simulates and RECORDING replays; pass one of them"
    if arguments.out.exists() and not arguments.out.is_dir():
        return f"--out {arguments.out} is a file; pass a folder"
    if arguments.smtp and not arguments.smtp.rpartition(":")[2].isdecimal():
        return f"--smtp {arguments.smtp} has no port; pass HOST:PORT, such as localhost:25"
    if arguments.minutes is not None and arguments.minutes <= 0:
        return "--minutes must be above 0"
    if arguments.shoppers is not None and arguments.shoppers < 0:
        return "--shoppers must be at least 0"
    if not arguments.realtime and (arguments.speed != 1.0 or arguments.lead):
        return "--speed and --lead need --realtime"
    if not 0.01 <= arguments.speed <= 1000.0 or not 0.0 <= arguments.lead < 1e6:
        return f"--speed {arguments.speed:g} --lead {arguments.lead:g}: want 0.01 to 1000 times, and minutes from 0 on"
    return _live_fault(arguments)


def _live_fault(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the options of a live store together."""
    if arguments.mqtt and (arguments.recording or not arguments.store):
        return "--mqtt runs a live store; pass its folder with --store, and no RECORDING"
    if arguments.mqtt and (arguments.realtime or arguments.minutes is not None or arguments.shoppers is not None):
        return "--mqtt runs at the pace of the sensors; leave out --realtime, --minutes and --shoppers"
    if not arguments.mqtt and (arguments.record or arguments.till or arguments.code_key or arguments.staff_list):
        return "--record, --till, --code-key and --staff-list need --mqtt"
    if arguments.till and (arguments.code_key or arguments.staff_list):
        return "--code-key and --staff-list stand in [gates] of the till.toml; leave them out with --till"
    if arguments.mqtt and arguments.smtp:
        return "--smtp is for simulated stores; a live one names its mail server in [mail] of --till"
    return None


def _live_settings(arguments: argparse.Namespace) -> LiveSettings | None:
    from fusion.runner.settings import LiveSettings

    if not arguments.mqtt:
        return None
    return LiveSettings(
        broker=arguments.mqtt,
        password_file=arguments.mqtt_password_file,
        authorities=arguments.mqtt_ca,
        record=arguments.record,
        code_key=arguments.code_key,
        staff_list=arguments.staff_list,
    )


RUN = Command(
    "run",
    "Run a store from door to receipt: simulate one, replay a recording, or run it live on its sensors.",
    (
        "--store amazon_go",
        "RECORDING --out results",
    ),
    {
        0: "ended in order; of a live store, by Ctrl-C or SIGTERM",
        2: "an input cannot be used or is damaged; results up to there are kept",
    },
    _declare,
    _run,
)
