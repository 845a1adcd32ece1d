"""`fusion learnt`: what a store has taught its engine, in words."""

from __future__ import annotations

import argparse

from fusion.commands.books import load_store
from fusion.commands.parser import Command, add_path


def _declare(parser: argparse.ArgumentParser) -> None:
    add_path(parser, "store", help="store folder, or name of an example store")
    add_path(parser, "file", help="learnt.json, or the folder of the store's process that holds it")


def _run(arguments: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from fusion.errors import FusionError
    from fusion.goods.learnt import Learnt
    from fusion.live.teaching import FILE
    from fusion.sentences import lesson_text

    store, path = load_store(arguments.store), Path(arguments.file)
    path = path / FILE if path.is_dir() else path
    learnt = Learnt(store)
    try:
        learnt.restore(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise FusionError(f"{path}: {error}") from None
    for lesson in learnt.latest.values():
        print(lesson_text(lesson, store))
    known = learnt.gain[learnt.known_gains]
    if len(known):
        print(f"gains of {len(known)} plates are known, from {known.min():.3f} to {known.max():.3f}")
    if not learnt.latest and not len(known):
        print("nothing has been learnt yet")
    return 0


LEARNT = Command(
    "learnt",
    "Print what a store has taught its engine: weights of deliveries, gains of plates, how far evidence counts.",
    ("STORE out/STORE", "STORE out/STORE/learnt.json"),
    {0: "it was printed"},
    _declare,
    _run,
)
