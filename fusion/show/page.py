"""What all pages share: the files in `pages/`, and text and numbers in a form that any page can hold."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

TEXT_MAX = 300
# Marks an unknown number among those that `packed` writes.
UNKNOWN_INT16 = -32768


def page_file(name: str) -> str:
    """Text of a file that browsers get."""
    return resources.files("fusion.show").joinpath("pages", name).read_text(encoding="utf-8")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """Text of a page file in which every `{{key}}` is replaced by `parts[key]`."""
    # One pass, so that a part that itself contains {{...}} is not filled again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page_file(template))


def clean(text: Any) -> Any:
    """Text that any file can hold: no control characters, no lone surrogates, at most `TEXT_MAX` characters.

    A value that is not text is returned unchanged.
    """
    if not isinstance(text, str):
        return text
    shown = "".join(c if c.isprintable() or c == " " else "\ufffd" for c in text[:TEXT_MAX])
    return shown + ("…" if len(text) > TEXT_MAX else "")


def rounded(value: float) -> float | None:
    """A number to three decimals; None where it is infinite or NaN, which JSON cannot express."""
    return round(float(value), 3) if math.isfinite(value) else None


def packed(values: ArrayLike) -> str:
    """Numbers rounded to int16, little-endian, as base64; `UNKNOWN_INT16` stands for infinite and NaN."""
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    whole = np.where(known, np.rint(np.clip(np.where(known, numbers, 0.0), -32767, 32767)), UNKNOWN_INT16)
    return base64.b64encode(whole.astype("<i2").tobytes()).decode("ascii")


def compact_json(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def script_json(value: Any) -> str:
    """JSON for the inside of a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
