"""Make the golden recordings and what the engine answers to them.

    python tests/recordings/make.py             the answers, of the recordings that are there
    python tests/recordings/make.py --record    new recordings too

A change that alters an answer must say why. The recordings themselves change only with the file contract, so that the
engine is tested with the same inputs whatever the simulator becomes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fusion import replay
from fusion.simulation import Scenario, Simulation, demo_store

HERE = Path(__file__).resolve().parent
# Two shoppers who meet at the shelves and put things back; a family, and a person who slips in behind it.
SCENES = {
    "two_shoppers": Scenario(seed=7, minutes=0.8, shoppers=2, put_back_probability=0.4, neighbour_probability=0.5),
    "family_and_tailgater": Scenario(seed=8, minutes=1.0, shoppers=1, companions=1, tailgaters=1),
}


def answers(recording: Path) -> dict:
    """Receipts, events and a person's place every second, as a replay writes them."""
    with tempfile.TemporaryDirectory() as folder:
        replay(recording, folder)
        rows = {}
        for name in ("receipts", "events"):
            rows[name] = [json.loads(line) for line in (Path(folder) / f"{name}.jsonl").read_text().splitlines()]
        table = pq.read_table(Path(folder) / "tracks.parquet", columns=["time", "track", "x", "y"])
    time, track, x, y = (table[name].to_numpy() for name in table.column_names)
    places = {}
    for one in np.unique(track).tolist():
        mine = track == one
        whole_s = np.arange(np.ceil(time[mine][0] / 1e9), np.floor(time[mine][-1] / 1e9) + 1)
        seconds = (whole_s - time[0] // 10**9).astype(int).tolist()
        # Relative to the first row, since seconds since 1970 with nine decimals do not fit a float.
        since = (time[mine] - time[0]) / 1e9
        at = whole_s - time[0] / 1e9
        places[str(one)] = [
            [second, round(float(px), 3), round(float(py), 3)]
            for second, px, py in zip(seconds, np.interp(at, since, x[mine]), np.interp(at, since, y[mine]))
        ]
    return {**rows, "places_m": places}


def main() -> None:
    for name, scenario in SCENES.items():
        if "--record" in sys.argv:
            Simulation(demo_store(n_cameras=5, n_plates=12), scenario).write(HERE / name)
        (HERE / f"{name}.json").write_text(json.dumps(answers(HERE / name), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
