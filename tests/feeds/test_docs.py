"""The files that docs/feeds.md shows fit a store."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fusion.feeds.settings import PLACES, FeedsFile, FeedsSettings
from fusion.simulation import demo_store

PAGE = Path(__file__).resolve().parents[2] / "docs" / "feeds.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_file_of_the_page_fits_a_store(block: str, tmp_path: Path) -> None:
    made = demo_store(n_cameras=4, n_plates=8)
    names = {plate.plate: f"p{i + 1}" for i, plate in enumerate(made.plates)}
    fields = {
        "keypoints": "box2", "weight_rate_hz": 10.0,
        "cameras": tuple(camera.model_copy(update={"name": f"cam{i + 1:02}"}) for i, camera in enumerate(made.cameras)),
        "plates": tuple(plate.model_copy(update={"plate": names[plate.plate]}) for plate in made.plates),
        "planogram": tuple(row.model_copy(update={"plate": names[row.plate]}) for row in made.planogram),
    }  # fmt: skip
    for name in ("shop", "cabinet"):
        made.model_copy(update=fields).save(tmp_path / name)
    tables = tomllib.loads(block)
    if not tables.keys() - set(PLACES):
        block += '\n[[onvif]]\ncamera = "cam01"\nurl = "rtsp://10.0.0.11/x"\n'
    (tmp_path / "feeds.toml").write_text(block, encoding="utf-8")
    assert FeedsFile.load(tmp_path / "feeds.toml").store.id


def test_the_page_shows_each_kind_of_feed() -> None:
    shown = {key for block in BLOCKS for key in tomllib.loads(block)}
    assert FeedsSettings.model_fields.keys() == shown
