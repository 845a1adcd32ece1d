"""calib.io Calibrator's JSON: `Calibration.cameras`, each with f, ar, cx, cy and OpenCV's fourteen coefficients.

fy is f times ar. Poses are passed over: the vendor does not document whether `transform` leads to the camera or from
it.

Source: calib.io, "Calibrator: reading parameters into OpenCV" (readCalibParameters, public domain).
"""

from __future__ import annotations

from typing import Any

from fusion.files.calibrations.parts import Part, Value

_COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4", "tauX", "tauY")


def recognises(document: dict[str, Any]) -> bool:
    """Whether a document is of this format."""
    calibration = document.get("Calibration")
    return isinstance(calibration, dict) and isinstance(calibration.get("cameras"), list)


def read(document: dict[str, Any], label: str, faults: list[str]) -> list[Part]:
    """The cameras' values in a document of this format; they have no names and are counted from 0."""
    parts = []
    for number, table in enumerate(document["Calibration"]["cameras"]):
        where = f"{label}: Calibration.cameras[{number}]"
        model = None
        if isinstance(table, dict) and isinstance(table.get("model"), dict):
            model = table["model"].get("polymorphic_name")
        if model != "libCalib::CameraModelOpenCV":
            faults.append(f"{where}.model: want libCalib::CameraModelOpenCV, got {str(model)[:60]!r}")
            continue
        try:
            data = table["model"]["ptr_wrapper"]["data"]
            number_of = {name: float(entry["val"]) for name, entry in data["parameters"].items() if "val" in entry}
            f, fy = number_of["f"], number_of["f"] * number_of.get("ar", 1.0)
            matrix = [[f, 0.0, number_of["cx"]], [0.0, fy, number_of["cy"]], [0.0, 0.0, 1.0]]
            size = data.get("CameraModelCRT", {}).get("CameraModelBase", {}).get("imageSize", {})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            faults.append(f"{where}: want parameters f, ar, cx, cy with a val each, got none ({error})")
            continue
        part = Part(str(number), label)
        part.values["matrix"] = Value("parameters f, ar, cx, cy", matrix)
        part.values["distortions"] = Value("parameters k1 ... tauY", [number_of.get(c, 0.0) for c in _COEFFICIENTS])
        if isinstance(size, dict) and {"width", "height"} <= set(size):
            part.values["size"] = Value("imageSize", [size["width"], size["height"]])
        if "transform" in table:
            part.notes.append(f"{where}.transform: passed over, its direction is not documented")
        parts.append(part)
    return parts
