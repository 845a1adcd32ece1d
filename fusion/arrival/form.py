"""Observations as the engine's stages rely on them: integer times, float32 arrays of the right shape."""

from __future__ import annotations

from dataclasses import replace
from operator import index

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ShapeError, TimeError
from fusion.observations import (
    EARLIEST_NS,
    LATEST_NS,
    DoorState,
    Frame,
    GateScan,
    ItemSighting,
    Observation,
    ShelfReading,
    time_fault,
)
from fusion.store.card_numbers import looks_like_card_number, without_card_number
from fusion.store.models import Store

_FLOAT32 = np.dtype(np.float32)


class ObservationForm:
    """The form that observations of a store must have."""

    def __init__(self, store: Store) -> None:
        self._keypoints_shape = (-1, store.layout.n_joints, 3)
        self._appearance_dim = store.appearance_dim

    def checked(self, observation: Observation) -> Observation:
        """The observation with an int for its time and float32 arrays of the right shape; itself where it has both.

        Raises:
            TimeError: a time that is not an integer of UTC nanoseconds; the message names the sensor.
            ShapeError: arrays that do not fit the store's layout, or do not hold floats; a text that looks like a card
                number.
            TypeError: not an observation.
        """
        if isinstance(observation, Frame):
            t_ns = observation.t_ns
            if type(t_ns) is not int or not EARLIEST_NS <= t_ns <= LATEST_NS:
                t_ns = _instant(f"frame of camera {str(observation.camera)[:40]!r}", t_ns)
            keypoints = _floats("keypoints", observation.keypoints, self._keypoints_shape)
            appearance = observation.appearance
            if self._appearance_dim:
                appearance = _floats("appearance", appearance, (len(keypoints), self._appearance_dim))
            same = t_ns is observation.t_ns and keypoints is observation.keypoints
            if not same or appearance is not observation.appearance:
                return Frame(t_ns, observation.camera, keypoints, appearance)
        elif isinstance(observation, ShelfReading):
            t_ns = observation.t_ns
            if type(t_ns) is not int or not EARLIEST_NS <= t_ns <= LATEST_NS:
                t_ns = _instant(f"weights of plate {str(observation.plate)[:40]!r}", t_ns)
            samples = _floats("samples", observation.samples, (-1,))
            if t_ns is not observation.t_ns or samples is not observation.samples:
                return ShelfReading(t_ns, observation.plate, samples)
        elif isinstance(observation, GateScan | DoorState | ItemSighting):
            return _event(observation)
        else:
            kind = type(observation).__name__
            raise TypeError(f"want a Frame, ShelfReading, GateScan, DoorState or ItemSighting, got {kind}")
        return observation


def _event(observation: GateScan | DoorState | ItemSighting) -> Observation:
    """A scan, a door's state or a sighting with an int for its time. Raises TimeError, ShapeError."""
    texts: tuple[object, ...]
    if isinstance(observation, GateScan):
        named, texts = f"scan at gate {_shown(observation.gate)}", (observation.gate, observation.account)
    elif isinstance(observation, DoorState):
        named, texts = f"door of gate {_shown(observation.gate)}", (observation.gate,)
        if not isinstance(observation.is_open, bool):
            raise ShapeError(f"{named}: is_open: want True or False, got {_shown(observation.is_open)}")
    else:
        named = f"sighting of {_shown(observation.source)}"
        texts = (observation.source, observation.zone, observation.plate)
    if any(isinstance(text, str) and looks_like_card_number(text) for text in texts):
        raise ShapeError(f"{named}: want no card number, got a text that looks like one")
    t_ns = _instant(named, observation.t_ns)
    return observation if t_ns is observation.t_ns else replace(observation, t_ns=t_ns)


def _shown(name: object) -> str:
    return repr(without_card_number(str(name))[:50])


def _instant(observation: str, t_ns: object) -> int:
    """A time as a Python int, NumPy's integers included. Raises TimeError, which names the observation."""
    try:
        instant = index(t_ns)  # type: ignore[arg-type]
    except TypeError:
        got = f"{type(t_ns).__name__} {str(t_ns)[:40]}"
        message = f"{observation}: t_ns: want an integer of UTC nanoseconds since 1970, got {got}"
        raise TimeError(message) from None
    fault = time_fault(instant)
    if fault:
        raise TimeError(f"{observation}: t_ns: {fault}")
    return instant


def _floats(name: str, array: object, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The array as C-contiguous float32, itself where it is that already; -1 in a shape stands for any length."""
    # Nearly all are what is wanted. NumPy has one object for the type, so that most are recognised by it.
    if (
        type(array) is np.ndarray and array.dtype is _FLOAT32 and array.ndim == len(shape)
        and array.shape[1:] == shape[1:] and shape[0] == -1 and array.flags.c_contiguous
    ):  # fmt: skip
        return array
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        got = f"{array.dtype} array" if isinstance(array, np.ndarray) else type(array).__name__
        raise ShapeError(f"{name}: want an array of floats, got {got}")
    if array.ndim != len(shape) or any(want not in (-1, have) for want, have in zip(shape, array.shape)):
        wanted = ", ".join("n" if want == -1 else str(want) for want in shape)
        raise ShapeError(f"{name}: want ({wanted}{',' if len(shape) == 1 else ''}), got {array.shape}")
    return np.ascontiguousarray(array, np.float32)
