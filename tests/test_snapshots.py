"""Snapshots: the remainder of a run is the same in another process, and bytes that are not a snapshot are refused."""

from __future__ import annotations

import collections
import contextlib
import hmac
import json
import os
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fusion
from bench.endurance import snapshots
from fusion._kernels import state, triangulation
from fusion.engine import Engine
from fusion.errors import SnapshotError
from fusion.files.recordings import Recording
from fusion.goods.weighings import GAIN_VAR
from fusion.observations import Observation
from fusion.people.arms import ArmHistory
from fusion.results import Receipt, Warning
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.snapshots import MAGIC, copied, layout_digest, newest_ns, resume, save, snapshot
from fusion.store.models import Camera, Gate, Store
from fusion.store.rotations import rotation_matrix, rotation_vector
from fusion.store.values import StrictModel


@pytest.fixture(scope="module")
def halfway(small_recording: Path) -> tuple[Engine, bytes, list[Any]]:
    """An engine half a minute into a run, its snapshot, and what comes after."""
    recording = Recording(small_recording)
    observations = list(recording.observations())
    middle = len(observations) // 2
    engine = Engine(recording.store)
    for observation in observations[:middle]:
        engine.feed(observation)
    return engine, snapshot(engine), observations[middle:]


def test_the_remainder_is_the_same_in_another_process(small_recording: Path, tmp_path: Path) -> None:
    expected = snapshots.snapshots(small_recording, 6, tmp_path, seed=3)["expected"]
    assert len(set(expected.values())) > 1  # The remainder differs from instant to instant.
    assert snapshots.resumed_in_another_process(small_recording, tmp_path, list(expected), hash_seed=4242) == expected


def test_saving_does_not_change_an_engine(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    engine, data, _ = halfway
    again = snapshot(engine)
    assert again == data
    assert newest_ns(data) == engine.newest_ns > 0


def test_a_copy_continues_as_its_engine_does_and_shares_what_neither_changes(
    halfway: tuple[Engine, bytes, list[Any]],
) -> None:
    engine, data, observations = halfway
    first = resume(data, engine.store)
    second = copied(first)
    assert second is not first and second.store is first.store
    feed = [[result for one in observations for result in each.feed(one)] + each.close() for each in (second, first)]
    assert list(map(repr, feed[0])) == list(map(repr, feed[1])) and any(isinstance(r, Receipt) for r in feed[0])


def test_functions_come_from_the_new_process(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    engine, data, observations = halfway
    tapped: list[Any] = []
    ticks = iter(range(0, 10**12, 1000))
    other = resume(data, engine.store, stopwatch_ns=lambda: next(ticks), tap=tapped.append)
    before = other.step_times.copy()
    for observation in observations[:200]:
        other.feed(observation)
    assert tapped and other.step_times.since(before).total_ns > 0


def test_prices_and_names_may_change(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    engine, data, observations = halfway
    products = tuple(one.model_copy(update={"price": one.price + 1000}) for one in engine.store.products)
    dearer = engine.store.model_copy(update={"products": products, "name": "Another name"})
    plain, changed = resume(data, engine.store), resume(data, dearer)

    def receipts(one: Engine) -> list[Receipt]:
        results = [result for observation in observations for result in one.feed(observation)] + one.close()
        return [result for result in results if isinstance(result, Receipt)]

    before, after = receipts(plain), receipts(changed)
    pieces = [sum(line.quantity for line in receipt.lines) for receipt in before]
    assert sum(pieces) > 0
    assert [receipt.total for receipt in after] == [r.total + 1000 * n for r, n in zip(before, pieces)]


def test_a_camera_may_move_but_not_be_added(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    engine, data, _ = halfway
    store = engine.store
    first = store.cameras[0]
    moved = first.model_copy(update={"translation": tuple(value + 0.01 for value in first.translation)})
    resume(data, store.model_copy(update={"cameras": (moved, *store.cameras[1:])}))
    added = (*store.cameras, first.model_copy(update={"name": "zz"}))
    with pytest.raises(SnapshotError, match="layout: want"):
        resume(data, store.model_copy(update={"cameras": added}))


@pytest.mark.parametrize("what", ["cameras", "plates", "products", "planogram", "gate"])
def test_another_layout_is_refused(halfway: tuple[Engine, bytes, list[Any]], what: str) -> None:
    engine, data, _ = halfway
    fewer = engine.store.model_copy(update={what: getattr(engine.store, what)[:-1]})
    with pytest.raises(SnapshotError, match="layout: want"):
        resume(data, fewer)


def test_another_store_and_another_version_are_refused(
    halfway: tuple[Engine, bytes, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, data, _ = halfway
    with pytest.raises(SnapshotError, match="store: want 'other'"):
        resume(data, engine.store.model_copy(update={"id": "other"}))
    monkeypatch.setattr(fusion, "__version__", "999.0")
    with pytest.raises(SnapshotError, match=r"version: want '999\.0'"):
        resume(data, engine.store)


@settings(max_examples=60, deadline=None)
@given(where=st.one_of(st.floats(0, 1, exclude_max=True), st.floats(0, 0.01)), bit=st.integers(0, 7), cut=st.booleans())
def test_damaged_bytes_are_refused(halfway: tuple[Engine, bytes, list[Any]], where: float, bit: int, cut: bool) -> None:
    engine, data, _ = halfway
    place = int(where * len(data))
    damaged = bytearray(data)
    damaged[place] ^= 1 << bit
    for asked in (newest_ns, lambda bytes_: resume(bytes_, engine.store)):
        with pytest.raises(SnapshotError):
            asked(data[:place] if cut else bytes(damaged))


def encoded(value: Any) -> state.Encoded:
    """A value in the format of a snapshot's body."""
    encoder = state.Encoder({}, frozenset(), frozenset(), shares=False)
    encoder.add([value])
    return encoder.out


def decoded(part: state.Encoded, body: bytes | None = None, n_max: int = 20_000) -> Any:
    """What it holds."""
    body = part.gathered() if body is None else body
    [value] = state.decode(body, part.classes, part.names, part.dtypes, (), (), {}, n_max)
    return value


def forged(store: Store, body: bytes = b"\0", key: bytes = b"", **tables: Any) -> bytes:
    """Bytes that an attacker may write: everything is valid except what is passed."""
    none: dict[str, Any] = {"n_bytes": 0, "classes": [], "names": [], "dtypes": []}
    whole = {
        "version": fusion.__version__, "store": store.id, "layout": layout_digest(store), "newest_ns": 1,
        "parts": [none, {**none, "n_bytes": len(body), **tables}],
    }  # fmt: skip
    payload = json.dumps(whole).encode() + b"\n" + zlib.compress(body)
    return MAGIC + hmac.digest(key, payload, "sha256").hex().encode() + b"\n" + payload


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "builtins.eval", "builtins.type", "subprocess.Popen", "pathlib.Path", "fusion.engine.moved",
        "fusion.engine.Any", "fusion.engine.Engine.__init__", "fusion.snapshots.Frozen", "fusion.goods.billing.Counter",
        "fusion.files.recordings.RecordingWriter", "fusion.goods...os.system", "fusion.store.models.Store", "", "os",
    ],
)  # fmt: skip
def test_classes_that_no_engine_consists_of_are_refused(halfway: tuple[Engine, bytes, list[Any]], name: str) -> None:
    with pytest.raises(SnapshotError):
        resume(forged(halfway[0].store, classes=[name]), halfway[0].store)


@pytest.mark.attack(15)
@pytest.mark.parametrize(
    "head",
    [
        {"names": ["__class__"]}, {"names": ["__dict__"]}, {"names": ["os"], "body": b"\x17\0\0"}, {"names": ["a b"]},
        {"names": ["fusion._kernels.records"]}, {"names": 3},
        {"dtypes": [[False, ["a", "|O", []]]]}, {"dtypes": [[False, ["a", "|V8", []]]]}, {"dtypes": ["|O"]},
        {"dtypes": [[False, ["a", "<f8", [1 << 40]]]]}, {"dtypes": [[False, ["a", "<f8", [-1]]]]},
        {"n_bytes": 1 << 40}, {"n_bytes": -1}, {"n_bytes": "1"}, {"n_bytes": 0}, {"n_bytes": 2}, {"classes": [["os"]]},
    ],
)  # fmt: skip
def test_heads_that_name_memory_or_code_are_refused(
    halfway: tuple[Engine, bytes, list[Any]], head: dict[str, Any]
) -> None:
    with pytest.raises(SnapshotError):
        resume(forged(halfway[0].store, **head), halfway[0].store)


MANY = b"\xff\xff\xff\xff"
LARGE = (1 << 40).to_bytes(8, "little")


@pytest.mark.attack(15)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff", b"\0\0", b"\x06" + MANY, b"\x09" + MANY, b"\x0a" + MANY + b"\0" * 64, b"\x0b" + MANY,
        b"\x18" + MANY, b"\x16" + MANY, b"\x19" + MANY, b"\x13\1\0\0\0\0\0", b"\x15\0\0\0\0", b"\x14" + MANY + b"\0\0",
        b"\x12\x09\x01" + LARGE + b"\0" * 64, b"\x12\x09\x03" + 3 * LARGE, b"\x12\x09\x02" + bytes(8) + b"\xff" * 8,
        b"\x12\x09\xff" + 255 * LARGE, b"\x12\x63\x01" + LARGE, b"\x12\x00\x01\x01" + bytes(7) + b"\x07",
        b"\x09\1\0\0\0" * 100_000 + b"\0", b"\x0e\1\0\0\0\x06",
    ],
)  # fmt: skip
def test_bodies_that_claim_more_than_they_hold_are_refused(
    halfway: tuple[Engine, bytes, list[Any]], body: bytes
) -> None:
    with pytest.raises(SnapshotError):
        resume(forged(halfway[0].store, body), halfway[0].store)


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_state_is_read_or_refused(
    halfway: tuple[Engine, bytes, list[Any]], changes: list[tuple[float, int]]
) -> None:
    """Whatever the bytes are, reading them ends, in a value or an exception; 20 000 values are not exceeded."""
    part = encoded(halfway[0]._visits)
    body = bytearray(part.gathered())
    for place, byte in changes:
        body[int(place * len(body))] = byte
    with contextlib.suppress(Exception):
        decoded(part, bytes(body))


@pytest.mark.attack(15)
def test_a_snapshot_under_a_key_is_read_with_that_key_alone(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    engine, _, _ = halfway
    data = snapshot(engine, b"the store's key")
    assert newest_ns(data, b"the store's key") == engine.newest_ns
    resume(data, engine.store, key=b"the store's key")
    for key in (b"", b"another key"):
        with pytest.raises(SnapshotError, match="another key"):
            resume(data, engine.store, key=key)
    with pytest.raises(SnapshotError, match="another key"):
        resume(forged(engine.store), engine.store, key=b"the store's key")


@pytest.mark.parametrize(
    "value",
    [
        None, True, -(2**63), 2**80, -(2**200), 0.1, float("inf"), "", "\ud800 \u00e9", b"\0", bytearray(b"ab"), (),
        [1, [2]], {1: {"a"}}, frozenset({3}), collections.deque([1, 2], maxlen=3), collections.Counter("aab"),
        collections.OrderedDict(b=1, a=2), collections.defaultdict(list, {1: [2]}),
    ],
)  # fmt: skip
def test_values_come_back_as_they_were(value: Any) -> None:
    first, second = decoded(encoded((value, value)))
    assert first == value and type(first) is type(value) and repr(first) == repr(value)
    if isinstance(value, str | list | dict | set | collections.deque | bytearray):
        assert first is second
    if isinstance(value, collections.deque):
        assert first.maxlen == value.maxlen


ALIGNED = np.dtype([("a", "i1"), ("b", "f8", (2,))], align=True)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "i4", "u4", "i8", "u8", "f4", "f8", ALIGNED])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_arrays_come_back_as_they_were(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype)
    if array.dtype.names is None:
        array[...] = np.arange(array.size).reshape(shape) % 2
    for each in (array, array.T):
        back = decoded(encoded(each), n_max=1)
        assert back.dtype == each.dtype and back.shape == each.shape and (back == each).all()


@pytest.mark.parametrize(
    "value", [object, len, np.array([None]), np.array(["a"]), np.float64(1.0), lambda: None, 1j, np.array([1], ">i4")]
)
def test_what_no_snapshot_can_hold_is_refused_when_it_is_written(value: Any) -> None:
    engine = Engine(demo_store(1, 1))
    engine._scans.append(value)
    with pytest.raises((TypeError, ValueError, AttributeError, SnapshotError)):
        snapshot(engine)


@pytest.mark.parametrize("data", [b"", MAGIC, MAGIC + b"{}\nx", b"PK\x03\x04 a zip", b"\x00" * 4096])
def test_what_is_not_a_snapshot_is_refused(halfway: tuple[Engine, bytes, list[Any]], data: bytes) -> None:
    with pytest.raises(SnapshotError):
        resume(data, halfway[0].store)
    with pytest.raises(SnapshotError):
        newest_ns(data)


def test_a_saved_file_is_whole_or_the_one_before(
    halfway: tuple[Engine, bytes, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, data, _ = halfway
    path = tmp_path / "state"
    save(engine, path)
    assert path.read_bytes() == data and [one.name for one in tmp_path.iterdir()] == ["state"]

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    fresh = Engine(engine.store)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(fresh, path)
    assert path.read_bytes() == data
    monkeypatch.undo()
    save(fresh, path)  # A temporary file that was left beside it does not matter.
    assert newest_ns(path.read_bytes()) == 0 and [one.name for one in tmp_path.iterdir()] == ["state"]


def test_gates_are_part_of_the_layout(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    """Moving a gate's line is a change of its place, not of the layout."""
    engine, data, _ = halfway
    gate = engine.store.gate[0]
    (x0, y0), end = gate.line
    nudged = Gate(**{**gate.model_dump(), "line": ((x0 + 0.01, y0), end)})
    resume(data, engine.store.model_copy(update={"gate": (nudged, *engine.store.gate[1:])}))


# ---- a changed store -------------------------------------------------------------------------------------------------

# What a change leaves as it is: by what arrays are laid out, and choices of few words, which have tests of their own.
LAID_OUT = {
    "id", "name", "format_version", "keypoints", "appearance_dim", "weight_rate_hz", "weight_unit", "plate", "gtin",
    "gtins", "currency", "timezone", "fisheye", "credentials", "kind", "mode", "days", "first_day", "last_day",
    "between",
}  # fmt: skip


# Room for a kernel's answers, never read before it is written.
SCRATCH = {
    f"._attributor.{name}"
    for name in ("_hypotheses._key", "_hypotheses._pick", "_hands._track", "_hands._log_ratio", "_hands._sums")
} | {".planogram._scratch"}


def otherwise(value: Any, key: str = "") -> Any:
    """A store in which every number is another, down to the last corner of a zone."""
    if key in LAID_OUT or value is None or isinstance(value, bool):
        return value
    if isinstance(value, StrictModel):
        return value.model_copy(update={name: otherwise(part, name) for name, part in value})
    if isinstance(value, tuple):
        return tuple(otherwise(part) for part in value)
    if key == "direction":
        return {"in": "both", "out": "in", "both": "out"}[value]
    if key == "hand_over":
        return {"picker": "carrier", "carrier": "picker"}[value]
    if key == "equal_price":
        return {"review": "settle", "settle": "review"}[value]
    if key == "moved":
        return {"correct": "report", "report": "correct"}[value]
    assert isinstance(value, int | float), key
    return value + 3 if isinstance(value, int) else 1.03 * value + 0.004


def parts(thing: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Everything that an engine consists of, by the way to it: arrays, numbers and texts, and how long what holds
    them is."""
    seen = set() if seen is None else seen
    if isinstance(thing, np.ndarray) and thing.dtype.names:
        yield from ((f"{path}[{name!r}]", thing[name]) for name in thing.dtype.names)
        return
    if isinstance(thing, StrictModel | np.ndarray | str | bytes | int | float | set | frozenset | None):
        yield path, thing
        return
    if isinstance(thing, type | types.ModuleType | types.FunctionType | triangulation.Workspace):
        return  # Of the process.
    if not isinstance(thing, tuple):
        if id(thing) in seen:
            return
        seen.add(id(thing))
    if isinstance(thing, dict):
        members = [(f"[{key!r}]", value) for key, value in thing.items()]
    elif isinstance(thing, list | tuple | collections.deque):
        members = [(f"[{i}]", value) for i, value in enumerate(thing)]
    elif hasattr(thing, "__dict__"):
        state_of = ArmHistory.__getstate__ if isinstance(thing, ArmHistory) else vars  # Rows that are in use.
        members = [(f".{name}", value) for name, value in state_of(thing).items()]
    else:
        members = [(f".{name}", getattr(thing, name)) for name in thing.__slots__]
    yield f"{path} n", len(members)
    for name, value in members:
        yield from parts(value, path + name, seen)


def differences(one: Engine, other: Engine) -> set[str]:
    """The ways to all that is not the same in two engines."""
    mine, others = dict(parts(one)), dict(parts(other))

    def same(path: str) -> bool:
        a, b = mine[path], others[path]
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return a.shape == b.shape and a.tobytes() == b.tobytes()
        return type(a) is type(b) and bool(a == b or a != a)

    found = (mine.keys() ^ others.keys()) | {path for path in mine.keys() & others.keys() if not same(path)}
    # The planogram's arrays once more, as kernels take them.
    return {path for path in found - SCRATCH if not path.startswith(".planogram.arrays[")}


# What was learnt of the pictures, and is void where their size or place changes.
PICTURES = ("._roll_call._detections[", "._roll_call._looked_at", "._roll_call._sizes.")


def test_all_that_follows_from_the_store_is_that_of_a_changed_one(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    """What follows from a store is what is different in new engines of two stores; no list of it can be too short."""
    engine, data, observations = halfway
    before = engine.store
    assert before.cameras and before.plates and before.gate and before.zone and before.obstacle.boxes
    after = otherwise(before)
    derived = differences(Engine(before), Engine(after))
    for name in (
        "._tracker._workspace.camera_from_world", "._tracker._workspace.lenses", "._tracker.health._geometry[1]",
        "._tracker._relinking._site.gates[0][0][0]", "._tracker._existence._geometry[3]",
        ".planogram.weight_g", "._billing._counts._planned",
        ".planogram.rows.along_m", "._attributor._hands._plates.centre_m", "._visits._lines._reach_sq",
        "._visits._lines.outward[0]",
        "._billing.sightings._miss['read']", "._billing._plate_m", ".store",
    ):  # fmt: skip
        assert any(path.startswith(name) for path in derived), name

    changed = resume(data, after)
    assert derived & differences(changed, Engine(after)) == {".planogram.stock"}
    shelves = changed.planogram
    assert shelves.arrays[2] is shelves.stock and shelves.arrays[3] is shelves.planned is shelves.learnt.planned
    now, new, filled = (one.planogram.stock for one in (resume(data, before), changed, Engine(after)))
    planned = filled > 0
    np.testing.assert_allclose(new[planned], now[planned] + 3)
    assert new[~planned].tobytes() == now[~planned].tobytes()

    # What was seen and learnt stays, but for what the change makes void.
    void = differences(changed, resume(data, before)) - derived
    weights = {f".planogram.{owner}gain{what}" for owner in ("", "learnt.") for what in ("", "_var")}
    cameras = {f"._tracker.health.{name}" for name in ("_since_ns", "moved")} | {
        f"._tracker.health._cameras[{name!r}]" for name in (
            "information", "rhs", "weight_s", "squares_m2_s", "residual_m", "fault", "trust", "looks", "misses",
                "looks_in", "misses_in",
        )
    }  # fmt: skip
    # A picture of another size.
    pictures = {path for path in void if path.startswith(PICTURES)}
    void -= pictures
    lines = ("._visits._walkers[", ".passages", ".entries")
    left = {path for path in void - weights - cameras if not path.startswith(lines[0])}
    assert left == set()
    assert all(any(name in path for name in lines[1:]) for path in void - weights - cameras)
    assert changed.open_visits == engine.open_visits != []
    # And it continues.
    for observation in observations:
        changed.feed(observation)
    changed.close()


def test_a_store_that_has_not_changed_changes_nothing(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    engine, data, _ = halfway
    assert differences(engine, resume(data, engine.store)) == set()


def with_cameras(store: Store, numbers: range, change: Callable[[Camera], Camera]) -> Store:
    cameras = tuple(change(one) if i in numbers else one for i, one in enumerate(store.cameras))
    return store.model_copy(update={"cameras": cameras})


def turned(camera: Camera) -> Camera:
    """Turned by ten degrees about the vertical, where it hangs."""
    rotation = rotation_matrix(camera.rotation)
    centre_m = -rotation.T @ np.array(camera.translation)
    rotation = rotation @ rotation_matrix((0.0, 0.0, np.radians(10.0)))
    place = {"rotation": rotation_vector(rotation), "translation": -rotation @ centre_m}
    return camera.model_copy(update={key: tuple(value.tolist()) for key, value in place.items()})


def shifted(camera: Camera) -> Camera:
    """Measured from another corner of the floor."""
    off = rotation_matrix(camera.rotation) @ np.array([0.8, 0.3, 0.0])
    return camera.model_copy(update={"translation": tuple((np.array(camera.translation) - off).tolist())})


def mislabelled(store: Store) -> Store:
    wrong = np.resize([1.3, 0.75, 1.2], len(store.products)).tolist()
    products = (one.model_copy(update={"weight_g": one.weight_g * by}) for one, by in zip(store.products, wrong))
    return store.model_copy(update={"products": tuple(products)})


SHOP, CHANGED_S = demo_store(n_cameras=6, n_plates=24), 40.0


def billed(before: Store, after: Store, observations: list[Observation]) -> tuple[dict[str, Any], list[Warning]]:
    """Receipts by account of a run during which the store folder changes, and the warnings since."""
    change_ns = observations[0].t_ns + int(CHANGED_S * 1e9)
    engine, results = Engine(before), []
    for observation in observations:
        if observation.t_ns < change_ns:
            results += engine.feed(observation)
    engine = resume(snapshot(engine), after)
    warnings = len(results)
    for observation in observations:
        if observation.t_ns >= change_ns:
            results += engine.feed(observation)
    results += engine.close()
    receipts = {one.account: one for one in results if isinstance(one, Receipt)}
    found = {
        account: (one.status, {line.gtin: line.quantity for line in one.lines}) for account, one in receipts.items()
    }
    return found, [one for one in results[warnings:] if isinstance(one, Warning)]


def test_a_camera_that_was_turned_goes_on_with_its_new_calibration() -> None:
    """It is turned while people are inside, and its new calibration comes fifteen seconds later."""
    recalibrated = with_cameras(SHOP, range(1), turned)
    scenario = Scenario(seed=6, minutes=2.0, shoppers=6)
    run, run_turned = Simulation(SHOP, scenario), Simulation(recalibrated, scenario)
    observations = list(run.observations())
    turned_ns = observations[0].t_ns + int((CHANGED_S - 15.0) * 1e9)
    observations = [one for one in observations if one.t_ns < turned_ns]
    observations += [one for one in run_turned.observations() if one.t_ns >= turned_ns]
    right = {visit.account: ("settled", visit.items) for visit in run.truth.visits}
    receipts, warnings = billed(SHOP, recalibrated, observations)
    assert receipts == right and len(right) == 6
    assert "camera moved" not in {one.kind for one in warnings}
    receipts, warnings = billed(SHOP, SHOP, observations)
    assert ("camera moved", SHOP.cameras[0].name) in {(one.kind, one.subject) for one in warnings}


@pytest.mark.parametrize("wrong", [with_cameras(SHOP, range(6), shifted), mislabelled(SHOP)], ids=["places", "weights"])
def test_who_comes_after_a_correction_is_billed_right(wrong: Store) -> None:
    run = Simulation(SHOP, Scenario(seed=5, minutes=2.0, shoppers=6))
    observations = list(run.observations())
    change_ns = observations[0].t_ns + int(CHANGED_S * 1e9)
    right = {one.account: ("settled", one.items) for one in run.truth.visits if one.enter_ns > change_ns}
    assert right
    corrected, _ = billed(wrong, SHOP, observations)
    assert {account: corrected[account] for account in right} == right
    as_before, _ = billed(wrong, wrong, observations)
    assert all(as_before[account] != right[account] for account in right)


def test_what_a_change_makes_void(halfway: tuple[Engine, bytes, list[Any]]) -> None:
    engine, data, observations = halfway
    store = engine.store
    camera = store.cameras[0].name
    # A distrusted camera is trusted again once it has a new calibration; other cameras are not affected.
    doubted = resume(data, store)
    doubted._tracker.health.moved[:2] = True
    doubted._tracker.health._cameras["trust"][:2] = 0.0
    again = resume(snapshot(doubted), with_cameras(store, range(1), turned))
    assert [one.moved for one in again.health().cameras] == [False, True, *4 * [False]]
    assert again._tracker.health._cameras["trust"].tolist() == [1.0, 0.0, *4 * [1.0]]
    results = [result for observation in observations[:300] for result in again.feed(observation)]
    warnings = [one for one in results if isinstance(one, Warning)]
    assert [one.subject for one in warnings if one.kind == "camera recalibrated"] == [camera]

    # What a plate exaggerates by was learnt from what lies there.
    planogram = engine.planogram
    gain_var = planogram.gain_var
    learnt = int(np.argmin(gain_var))
    assert gain_var[learnt] < GAIN_VAR and planogram.planned[learnt].any()
    heavier = {store.products[i].gtin for i in np.flatnonzero(planogram.planned[learnt])}
    products = (
        one.model_copy(update={"weight_g": one.weight_g + 9.0 * (one.gtin in heavier)}) for one in store.products
    )
    changed = resume(data, store.model_copy(update={"products": tuple(products)})).planogram
    others = [i for i, names in enumerate(planogram.planned) if not names[planogram.planned[learnt]].any()]
    assert (changed.gain[learnt], changed.gain_var[learnt]) == (1.0, GAIN_VAR)
    assert changed.gain_var[others].tobytes() == gain_var[others].tobytes() and (gain_var[others] < GAIN_VAR).any()


def test_nobody_crosses_a_line_that_moves(small_recording: Path) -> None:
    """Gate lines are redrawn farther in, behind a person who has just come in: that person has not left."""
    recording = Recording(small_recording)
    store, engine = recording.store, Engine(recording.store)
    gates = []
    for gate in store.gate:
        (x0, y0), (x1, y1) = gate.line
        inwards = np.array([y0 - y1, x1 - x0]) / np.hypot(x1 - x0, y1 - y0)
        line = tuple(tuple((np.array(point) + inwards).tolist()) for point in gate.line)
        gates.append(gate.model_copy(update={"line": line, "direction": "both"}))
    changed = store.model_copy(update={"gate": tuple(gates)})
    between = 0
    for count, observation in enumerate(recording.observations()):
        engine.feed(observation)
        before = {one.track_id: one for one in engine._visits._walkers.values() if one.inside and one.passages}
        if count % 60 or not before:
            continue
        again = resume(snapshot(engine), changed)
        again._visits.step(again._tracker.step([]))
        walkers = [one for track, one in again._visits._walkers.items() if track in before]
        assert all(one.inside for one in walkers)
        between += any(passage.side == -1 for one in walkers for passage in one.passages.values())
    assert between >= 3


def test_a_snapshot_holds_nothing_of_what_was_in_memory_before(
    small_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays whose content was never written hold what was freed before them: names, keys, pages of the vault."""
    mark = b"\xa5\x5a\xa7\x7a\xa1\x1a\xa3\x3a"
    make, n_marked = np.empty, 0

    def marked(shape: Any, dtype: Any = float, *args: Any, **kwargs: Any) -> Any:
        nonlocal n_marked
        array = make(shape, dtype, *args, **kwargs)
        if not array.dtype.hasobject and array.nbytes:
            content = array.reshape(-1).view(np.uint8)
            content[:] = np.resize(np.frombuffer(mark, np.uint8), content.shape)
            n_marked += 1
        return array

    monkeypatch.setattr(np, "empty", marked)
    monkeypatch.setattr(np, "empty_like", lambda like, *a, **k: marked(np.shape(like), np.asarray(like).dtype))
    recording = Recording(small_recording)
    engine, n = Engine(recording.store), 0
    for i, observation in enumerate(recording.observations()):
        engine.feed(observation)
        if i % 2000 == 0:
            n += len(snapshot(engine)) > 0
            _, body = snapshots_body(snapshot(engine))
            assert mark not in body, f"after {i} observations, at {body.index(mark)} of {len(body)}"
    assert n > 3 and n_marked > 1000


def snapshots_body(data: bytes) -> tuple[bytes, bytes]:
    """Head and body of a snapshot."""
    *head, body = data.split(b"\n", 3)
    return b"\n".join(head), zlib.decompress(body)
