"""What the documents' blocks find around them: placeholders that are real, and the names that a Python block uses."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusion.store.models import Camera

ROOT = Path(__file__).resolve().parents[2]


def furnish(folder: Path, recording: Path) -> None:
    """Make every placeholder that shell blocks name."""
    from fusion import Store
    from fusion.live.outbox import Outbox
    from fusion.money.ledger import Ledger

    for name in ("RECORDING", "RECORDING_1", "RECORDING_2", "STORE_OR_RECORDING", "walk"):
        shutil.copytree(recording, folder / name)
    for name in ("STORE", "path/to/store"):
        shutil.copytree(recording / "store", folder / name)
    _write_keypoints(folder, recording)
    store = Store.load(folder / "STORE")
    _write_calibrations(folder, store.cameras)
    Ledger.open(folder / "BOOKS", store).close()
    Outbox(folder / "OUTBOX", store).close()
    (folder / "feeds.toml").write_text(
        f'store = "STORE"\nto.address = "localhost:1883"\n[[reader]]\nname = "exit antenna"\n'
        f'host = "127.0.0.1"\nport = 9\nantennas = {{ 1 = "{store.gate[0].id}" }}\n',
        encoding="utf-8",
    )
    (folder / "serve" / "box17").mkdir(parents=True, mode=0o700)
    with Ledger.open(folder / "serve" / "box17" / "box17.sqlite", store) as ledger:
        ledger.open_visit("v1", None, 1_767_258_000 * 10**9)


def _write_calibrations(folder: Path, cameras: Sequence[Camera]) -> None:
    """The same cameras as a user may have them: EasyMocap's two files, ROS' one for each, and a store's."""
    intri, extri = (["%YAML:1.0", "---"] for _ in range(2))
    for lines in (intri, extri):
        lines += ["names:", *(f'  - "{camera.name}"' for camera in cameras)]

    def matrix(name: str, rows: int, values: Iterable[float]) -> list[str]:
        numbers = [float(value) for value in values]
        shape = f"rows: {rows}\n   cols: {len(numbers) // rows}\n   dt: d"
        return [f"{name}: !!opencv-matrix", f"   {shape}", f"   data: {numbers}"]

    (folder / "camera_info").mkdir()
    for camera in cameras:
        flat = [value for row in camera.matrix for value in row]
        width, height = camera.size
        intri += matrix(f"K_{camera.name}", 3, flat) + matrix(f"dist_{camera.name}", 1, camera.distortions)
        intri += [f"W_{camera.name}: {width}", f"H_{camera.name}: {height}"]
        extri += matrix(f"R_{camera.name}", 3, camera.rotation) + matrix(f"T_{camera.name}", 3, camera.translation)
        (folder / "camera_info" / f"{camera.name}.yaml").write_text(
            f"image_width: {width}\nimage_height: {height}\ncamera_name: {camera.name}\n"
            f"camera_matrix:\n  rows: 3\n  cols: 3\n  data: {flat}\ndistortion_model: plumb_bob\n"
            f"distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: {list(camera.distortions)}\n",
            encoding="utf-8",
        )
    for name, lines in (("intri.yml", intri), ("extri.yml", extri)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copytree(folder / "STORE", folder / "store")


def _write_keypoints(folder: Path, recording: Path, seconds: float = 20.0) -> None:
    """What a user of `fusion convert` has: a folder of OpenPose's files for each camera, a table of weights, scans."""
    from fusion import Recording
    from fusion.files.conversion import parse_instant
    from fusion.observations import Frame, ShelfReading

    opened = Recording(recording)
    step_ns = 1e9 / opened.store.weight_rate_hz
    observations = list(opened.observations())
    shift_ns = parse_instant("2026-11-30T09:00:00Z") - next(one.t_ns for one in observations if isinstance(one, Frame))
    numbers: Counter[str] = Counter()
    rows = ["time,plate,grams"]
    for one in observations:
        if one.t_ns > observations[0].t_ns + seconds * 1e9:
            break
        if isinstance(one, Frame):
            people = [{"pose_keypoints_2d": person.ravel().tolist()} for person in one.keypoints]
            path = folder / "KEYPOINTS" / one.camera / f"{numbers[one.camera]}_keypoints.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"people": people}))
            numbers[one.camera] += 1
        elif isinstance(one, ShelfReading):
            times = [one.t_ns + shift_ns + round(i * step_ns) for i in range(len(one.samples))]
            rows += [f"{t_ns},{one.plate},{grams}" for t_ns, grams in zip(times, one.samples.tolist())]
    (folder / "scales.csv").write_text("\n".join(rows))
    lines = map(json.loads, (recording / "gate.jsonl").read_text().splitlines())
    shifted = [json.dumps({**line, "time": line["time"] + shift_ns}) for line in lines]
    (folder / "gate.jsonl").write_text("\n".join(shifted))


def measure(recording: Path) -> int:
    """Stands for a user's own function in the block that maps one over recordings."""
    return sum(path.stat().st_size for path in Path(recording).rglob("*.parquet"))


@contextmanager
def names_for(page: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The names that a page's Python blocks take as given."""
    make: dict[str, Callable[[Path, ExitStack], dict[str, Any]]] = {
        "README.md": _sensors,
        "docs/api.md": _sensors,
        "docs/chain.md": _recordings,
        "docs/mqtt.md": _shop_with_broker,
    }
    with ExitStack() as stack:
        # The very object: a thread watches it for what the block defines.
        names = make[page](folder, stack) if page in make else {}
        names["__name__"] = "__block__"
        yield names


def _sensors(folder: Path, stack: ExitStack) -> dict[str, Any]:
    from fusion import Recording

    return {"sensors": Recording(folder / "RECORDING").observations()}


def _recordings(folder: Path, stack: ExitStack) -> dict[str, Any]:
    from documents import surroundings

    return {"recordings": [folder / "RECORDING_1", folder / "RECORDING_2"], "measure": surroundings.measure}


def _shop_with_broker(folder: Path, stack: ExitStack) -> dict[str, Any]:
    from broker import Mosquitto

    from fusion import Engine, Recording
    from fusion.gates.keeper import GateKeeper
    from fusion.gates.verifiers import OpenDoor

    broker = Mosquitto(folder / "mosquitto")
    stack.callback(broker.stop)
    recording = Recording(folder / "RECORDING")
    store = recording.store
    names: dict[str, Any] = {
        "store": store, "engine": Engine(store), "keeper": GateKeeper(store, {"open": OpenDoor()}),
        "frame": next(recording.frames()), "address": f"mqtt://{broker.address}",
    }  # fmt: skip
    threading.Thread(target=_stop_when_it_runs, args=(names,), daemon=True).start()
    return names


def _stop_when_it_runs(names: dict[str, Any]) -> None:
    """End the block's endless loop from outside, as Ctrl-C would."""
    for _ in range(600):
        time.sleep(0.1)
        if "live" in names:
            time.sleep(2.0)
            names["live"].stop()
            return


def check_extras(arguments: list[str]) -> int:
    """Stands for pip: every extra that a block installs is one of the project's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for brackets in re.findall(r"\[([\w,]+)\]", " ".join(arguments)) for extra in brackets.split(",")}
    unknown = named - project["optional-dependencies"].keys()
    if unknown:
        print(f"pyproject.toml has no extra {', '.join(sorted(unknown))}", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(check_extras(sys.argv[2:]))
