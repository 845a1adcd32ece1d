"""`fusion plan`: how many cameras and plates a store needs."""

from __future__ import annotations

import argparse
import time

from fusion.commands.parser import Command, add_path


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", metavar="STORE", help="store folder, or name of an example store")
    parser.add_argument("--wrong", type=float, default=0.3, help="settled receipts that may be wrong, percent (0.3)")
    parser.add_argument("--review", type=float, default=5.0, help="receipts that may go to review, percent (5)")
    parser.add_argument("--minutes", type=float, default=10.0, help="after which no further simulation begins (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulated customers (1)")


def _plan(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fusion.errors import ConfigError
    from fusion.example_stores.catalogue import store_folder
    from fusion.setup import planning
    from fusion.store.models import Store

    for name in ("wrong", "review"):
        if not 0.0 <= getattr(arguments, name) < 100.0:
            raise ConfigError(f"--{name}: want at least 0 and less than 100 percent, got {getattr(arguments, name)}")
    if not 0.0 < arguments.minutes <= 10_000.0 or arguments.seed < 0:
        raise ConfigError("want --minutes above 0 and --seed of at least 0")
    wrong, review = arguments.wrong / 100.0, arguments.review / 100.0
    store = Store.load(store_folder(arguments.store))
    started_s, found = time.monotonic(), planning.variants(store)
    print(f"{store.name}: {len(found)} stores with fewer cameras or plates, the same customers in each", flush=True)
    turns = planning.measure(
        found, wrong, review, arguments.seed, arguments.minutes, lambda turns: tqdm(turns, unit="turn", disable=None)
    )
    print("\n".join(planning.table(found, wrong, review)))
    print(f"{turns} turns in {(time.monotonic() - started_s) / 60.0:.1f} minutes; brackets: exact 95 % intervals")
    print(f"wanted: at most {arguments.wrong:g} % of the settled receipts wrong, {arguments.review:g} % in review")
    kept = [planning.fewest(found, wrong, review, plates=plates) for plates in (False, True)]
    for what, variant in zip(("cameras", "plates"), kept):
        if variant is None:
            print(f"fewest {what}: none of these stores keeps the limits; longer runs may say otherwise (--minutes)")
            continue
        names = [camera.name for camera in variant.store.cameras] if what == "cameras" else []
        detail = f": {', '.join(names)}" if names else ""
        number = len(getattr(variant.store, what))
        print(f"fewest {what} that kept the limits here: {number} of {len(getattr(store, what))}{detail}")
    return 0 if kept[0] is not None else 1


PLAN = Command(
    "plan",
    "Find the fewest cameras and plates with which a store keeps its limits, by simulation.",
    ("STORE --wrong 0.3 --review 5", "unmanned_box --minutes 60 --seed 4"),
    {0: "the store keeps its limits as it is, and the output says with how much less", 1: "it does not, as simulated"},
    _declare,
    _plan,
)
