"""`fusion check` finds and names every fault that is put into a store or a recording, and passes sound ones."""

from __future__ import annotations

import json
import math
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion import check
from fusion.commands.main import main
from fusion.errors import FusionError
from fusion.files.recordings import RecordingWriter
from fusion.observations import Frame, ShelfReading
from fusion.people.geometry import Rig
from fusion.setup.check import check_store
from fusion.setup.coverage import Coverage, Sight, hands_m
from fusion.setup.findings import exit_code
from fusion.setup.goods_checks import mix_up_probability
from fusion.show.plan import _stack_name
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Camera, Facing, Obstacle, Product, Store, Zone
from fusion.store.rotations import rotation_matrix


@pytest.fixture(scope="module")
def store():
    return demo_store()


@pytest.fixture(scope="module")
def observations():
    """A minute and a half of a small shop whose cameras see people often, with exact clocks."""
    shop = demo_store(n_cameras=5, n_plates=16, n_products=12)
    scenario = Scenario(seed=3, minutes=1.5, shoppers=4, frame_rate_hz=10.0, clock_offset_max_s=0.0)
    return shop, list(Simulation(shop, scenario).observations())


def rules(findings, severity=None):
    return {finding.rule for finding in findings if severity in (None, finding.severity)}


def single(findings, rule):
    """The only finding of a rule."""
    found = [finding for finding in findings if finding.rule == rule]
    assert len(found) == 1, findings
    return found[0]


def changed(models, index, **values):
    return (*models[:index], models[index].model_copy(update=values), *models[index + 1 :])


# ---- stores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_store_has_only_notes(seed):
    findings = check_store(demo_store(seed=seed))
    assert not rules(findings, "error") and not rules(findings, "warning") - {"look-alikes"}
    assert "coverage" in rules(findings, "note")


def turned(camera, *, up=0.0, centre=None):
    """The camera turned about its own x axis, or moved, with the same direction."""
    rotation = rotation_matrix(camera.rotation)
    at = -rotation.T @ np.array(camera.translation) if centre is None else np.array(centre)
    rotation = rotation_matrix((up, 0.0, 0.0)) @ rotation
    angle = math.acos((np.trace(rotation) - 1) / 2)
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    vector = axis * angle / (2 * math.sin(angle))
    return {"rotation": tuple(vector.tolist()), "translation": tuple((-rotation @ at).tolist())}


def test_faults_of_cameras_are_found(store):
    first, second, *_ = store.cameras
    wrong = {
        "camera-looks-away": turned(first, up=math.radians(-100)),
        "camera-below-floor": turned(first, centre=(4.0, 0.2, -1.0)),
        "camera-far-off": turned(first, centre=(270.0, 40.0, 2.7)),
        "camera-twice": {key: getattr(second, key) for key in ("rotation", "translation")},
        "lens-folds": {"distortions": (-0.6, 0.0, 0.0, 0.0, 0.0)},
        "camera-off-centre": {"matrix": ((630.0, 0.0, -40.0), (0.0, 630.0, 360.0), (0.0, 0.0, 1.0))},
        "camera-aspect": {"matrix": ((630.0, 0.0, 640.0), (0.0, 315.0, 360.0), (0.0, 0.0, 1.0))},
    }
    for rule, values in wrong.items():
        findings = check_store(store.model_copy(update={"cameras": changed(store.cameras, 0, **values)}))
        reported = [finding for finding in findings if finding.rule == rule]
        names = {f"camera {first.name}", f"camera {second.name}"}
        assert reported and all(finding.subject in names for finding in reported), (rule, findings)


def test_a_camera_inside_an_obstacle_is_blocked(store):
    at = -rotation_matrix(store.cameras[0].rotation).T @ np.array(store.cameras[0].translation)
    box = (at[0] - 0.1, at[1] - 0.1, at[0] + 0.1, at[1] + 0.1, 3.0)
    boxed = store.model_copy(update={"obstacle": Obstacle(boxes=(*store.obstacle.boxes, box))})
    assert single(check_store(boxed), "camera-blocked").subject == f"camera {store.cameras[0].name}"


def test_without_cameras_there_are_no_findings_about_sight(store):
    findings = check_store(store.model_copy(update={"cameras": ()}))
    assert "no-cameras" in rules(findings, "note") and not rules(findings, "error")
    assert not rules(findings) & {"plate-unseen", "gate-unseen", "floor-unseen"}


def test_plates_gates_and_floor_that_one_camera_sees_are_reported(store):
    alone = store.model_copy(update={"cameras": store.cameras[:1]})
    findings = check_store(alone)
    seen = Sight(alone).sees(hands_m(alone.plates))[0]
    reported = {finding.subject: finding for finding in findings if finding.rule == "plate-unseen"}
    assert len(reported) == len(store.plates)
    for plate, hand_seen in zip(store.plates, seen):
        finding = reported[f"plate {plate.plate}"]
        assert finding.severity == ("warning" if hand_seen else "error")
        assert finding.message.endswith(alone.cameras[0].name if hand_seen else "none")
    assert {"gate-unseen", "floor-unseen"} <= rules(findings)
    assert exit_code(findings) == 2


def test_an_obstacle_before_a_shelf_hides_its_plates(store):
    plate = next(plate for plate in store.plates if plate.yaw == 0.0 and plate.y > 5)
    front = plate.y - plate.depth / 2
    wall = (plate.x - 3.0, front - 0.12, plate.x + 3.0, front - 0.1, 2.6)
    walled = store.model_copy(update={"obstacle": Obstacle(boxes=(*store.obstacle.boxes, wall))})
    reported = {f.subject for f in check_store(walled) if f.rule in ("plate-unseen", "plate-out-of-reach")}
    assert f"plate {plate.plate}" in reported


def test_faults_of_the_plan_are_found(store):
    gates = changed(store.gate, 0, line=tuple(reversed(store.gate[0].line)))
    assert single(check_store(store.model_copy(update={"gate": gates})), "gate-reversed").subject == "gate entry"
    gates = changed(store.gate, 0, line=((0.5, -4.0), (1.5, -4.0)))
    assert "4.0 m off" in single(check_store(store.model_copy(update={"gate": gates})), "gate-off-floor").message
    only_in = store.model_copy(update={"gate": store.gate[:1]})
    assert "leaves" in single(check_store(only_in), "one-way").message
    zone = Zone(id="far", kind="queue", polygon=((7.0, 5.0), (9.0, 5.0), (9.0, 5.5), (7.0, 5.5)))
    off = check_store(store.model_copy(update={"zone": (*store.zone, zone)}))
    assert "2 of 4 outside" in single(off, "zone-off-floor").message
    paid = store.model_copy(update={"zone": (), "payment": store.payment.model_copy(update={"mode": "zone"})})
    assert single(check_store(paid), "no-payment-zone").severity == "error"
    box = Obstacle(boxes=(*store.obstacle.boxes, (30.0, 30.0, 31.0, 31.0, 1.0)))
    assert "obstacle-off-floor" in rules(check_store(store.model_copy(update={"obstacle": box})))


def test_faults_of_goods_are_found():
    shop = demo_store(seed=0)
    plate, product = shop.plates[0], shop.products[0]
    heavy = tuple(f for f in shop.planogram if f.plate != plate.plate)
    heavy += (Facing(plate=plate.plate, gtin=product.gtin, stock=math.ceil(plate.capacity_g / product.weight_g) + 1),)
    overloaded = single(check_store(shop.model_copy(update={"planogram": heavy})), "plate-overloaded")
    assert overloaded.subject == f"plate {plate.plate}"
    twin = shop.products[1].model_copy(update={"weight_g": product.weight_g + 0.5, "price": product.price + 1})
    alike = shop.model_copy(
        update={
            "products": (product, twin, *shop.products[2:]),
            "planogram": tuple(Facing(plate=plate.plate, gtin=p.gtin, stock=1) for p in (product, twin)),
        }
    )
    findings = check_store(alike)
    assert single(findings, "look-alikes").severity == "warning"
    assert product.name not in single(findings, "not-planned").message
    assert f"{len(shop.products) - 2} products" in single(findings, "not-planned").message
    assert f"{len(shop.plates) - 1} plates" in single(findings, "plate-not-planned").message
    loose = changed(shop.products, 0, weight_sd_g=product.weight_g)
    assert "weight-spread" in rules(check_store(shop.model_copy(update={"products": loose})))


@given(weight=st.floats(20, 2000), apart=st.floats(0, 200), sd=st.floats(0.1, 20))
@settings(max_examples=50, deadline=None)
def test_mix_ups_are_half_at_no_difference_and_fall_with_it(weight, apart, sd):
    def product(weight_g):
        return Product(gtin="40170725", name="x", weight_g=weight_g, weight_sd_g=sd, price=1, vat_rate=7)

    near, far = (mix_up_probability(product(weight), product(weight + d)) for d in (apart, apart + 1.0))
    assert 0.0 <= far <= near <= 0.5
    assert mix_up_probability(product(weight), product(weight)) == 0.5
    assert near == mix_up_probability(product(weight + apart), product(weight))


def test_mix_up_probability_is_what_weighing_gives():
    random = np.random.default_rng(0)
    lighter, heavier = (
        Product(gtin="40170725", name="x", weight_g=w, weight_sd_g=3.0, price=1, vat_rate=7) for w in (300.0, 309.0)
    )
    sd = np.array([math.hypot(3.0, 0.01 * p.weight_g, 1.0) for p in (lighter, heavier)])
    weighed = random.normal([[300.0], [309.0]], sd[:, None], (2, 200_000))
    # The border where both are equally many standard deviations away.
    border = 300.0 + 9.0 * sd[0] / sd.sum()
    share = 0.5 * ((weighed[0] > border).mean() + (weighed[1] < border).mean())
    assert mix_up_probability(lighter, heavier) == pytest.approx(share, abs=0.005)


# ---- coverage --------------------------------------------------------------------------------------------------------


def overhead(x, y, z=4.0, focal_px=400.0, size=(800, 800)):
    """A camera that looks straight down; image x along world x, image y against world y."""
    rotation = np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])
    translation = tuple((-rotation @ np.array([x, y, z])).tolist())
    matrix = ((focal_px, 0.0, size[0] / 2), (0.0, focal_px, size[1] / 2), (0.0, 0.0, 1.0))
    return Camera(
        name=f"c{x:g}_{y:g}", size=size, matrix=matrix, distortions=(0.0,) * 5, rotation=(math.pi, 0.0, 0.0),
        translation=translation,
    )  # fmt: skip


def bare(cameras, boxes=(), floor=((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0))):
    return Store(
        format_version=1, id="x", name="x", currency="EUR", timezone="UTC", floor=floor, keypoints="coco17",
        cameras=tuple(cameras), obstacle=Obstacle(boxes=tuple(boxes)),
    )  # fmt: skip


def test_coverage_is_the_area_in_the_picture():
    # At 1.2 m a camera at 4 m with a field of view of 90 degrees sees a square of 2 x 2.8 m edge.
    coverage = Coverage.of(bare([overhead(5.0, 5.0)]))
    assert coverage.share(1) == pytest.approx(5.6**2 / 100, abs=0.01)
    assert coverage.share(2) == 0.0
    assert [round(part.area_m2) for part in coverage.blind(1)] == [69]
    twice = Coverage.of(bare([overhead(5.0, 5.0), overhead(5.0, 7.8)]))
    assert twice.share(2) == pytest.approx(5.6 * 2.8 / 100, abs=0.01)


def test_a_box_casts_a_shadow():
    # A wall of 2 m beside the camera's foot: at 1.2 m its shadow begins at its side and ends where the ray over its
    # top comes down to 1.2 m, at 2.8 / 2.0 of the wall's distance.
    wall = (6.0, 0.0, 6.2, 10.0, 2.0)
    coverage = Coverage.of(bare([overhead(5.0, 5.0)], [wall]))
    middle = coverage.counts[:, 50]
    x = coverage.corner_m[0] + (np.arange(len(middle)) + 0.5) * coverage.cell_m
    assert (middle[(x > 6.0) & (x < 6.2)] == -1).all()
    lit = x[middle == 1]
    assert lit.min() == pytest.approx(2.25, abs=0.06) and lit.max() == pytest.approx(7.75, abs=0.06)
    dark = x[(middle == 0) & (x > 6.2) & (x < 7.7)]
    assert dark.max() == pytest.approx(5.0 + 1.2 * 2.8 / 2.0, abs=0.06)


@given(n=st.integers(0, 6), shift=st.tuples(st.floats(-300, 300), st.floats(-300, 300)))
@settings(max_examples=10, deadline=None)
def test_coverage_moves_with_the_world(n, shift):
    cameras = [overhead(1.5 * i, 10.0 - 1.5 * i) for i in range(n)]
    moved = [overhead(1.5 * i + shift[0], 10.0 - 1.5 * i + shift[1]) for i in range(n)]
    floor = [(x + shift[0], y + shift[1]) for x, y in bare([]).floor]
    here, there = Coverage.of(bare(cameras)), Coverage.of(bare(moved, floor=floor))
    # Cells whose middle lies just on a picture's edge may fall on either side.
    assert here.counts.shape == there.counts.shape and (here.counts != there.counts).mean() < 0.02


def test_sight_agrees_with_the_engines_projection(store):
    free = store.model_copy(update={"obstacle": Obstacle()})
    random = np.random.default_rng(0)
    points = random.uniform([-2, -2, 0], [10, 8, 2.4], (2000, 3))
    seen = Sight(free).sees(points)
    pixels = Rig.from_cameras(store.cameras).project(points)
    inside = (pixels >= -0.5).all(axis=-1) & (pixels < np.array([1280, 720]) - 0.5).all(axis=-1)
    # Where the distortion folds back, the plain projection returns into the picture, but no ray of the camera does.
    assert not (seen & ~inside).any() and (inside & ~seen).mean() < 0.01


def test_a_large_floor_gets_larger_cells(store):
    floor = ((0.0, 0.0), (400.0, 0.0), (400.0, 300.0), (0.0, 300.0))
    coverage = Coverage.of(store.model_copy(update={"floor": floor, "plates": (), "planogram": ()}))
    assert coverage.counts.size <= 50_000


def test_the_picture_is_sound_and_gives_the_shares(store, tmp_path):
    name = store.model_copy(update={"name": "<A & B>", "cameras": store.cameras[:2]})
    coverage = Coverage.of(name)
    coverage.write_svg(tmp_path / "coverage.svg")
    root = ET.parse(tmp_path / "coverage.svg").getroot()
    text = " ".join(root.itertext())
    assert "<A & B>" in text
    assert f"0: {1 - coverage.share(1):.0%}" in text
    crosses = [e for e in root.iter() if e.get("class") == "unseen"]
    assert len(crosses) == int((coverage.plates_views < 2).sum()) > 0
    # Every camera and shelf is named, and a bar shows the scale.
    words = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert {camera.name for camera in name.cameras} <= set(words) and "1 m" in words
    assert "g1s1-4p01" in words, "plates above one another share a name"


def test_a_name_for_plates_above_one_another_says_which():
    assert _stack_name(["A"]) == "A"
    assert _stack_name(["g1s1p01", "g1s2p01", "g1s4p01"]) == "g1s1-4p01"
    assert _stack_name(["floor", "middle", "top"]) == "floor +2"


# ---- recordings ------------------------------------------------------------------------------------------------------


def written(tmp_path, shop, observations, change=lambda observation: observation):
    folder = tmp_path / "recording"
    with RecordingWriter(folder, shop) as writer:
        for observation in observations:
            altered = change(observation)
            if altered is not None:
                writer.write(altered)
    return folder


def test_a_sound_recording_has_only_notes(tmp_path, observations):
    findings = check(written(tmp_path, *observations))
    assert not [f for f in findings if f.severity != "note"], findings
    assert "1.5 minutes" in single(findings, "recording").message


def test_many_faults_of_a_recording_are_reported_at_once(tmp_path, observations):
    shop, original = observations
    start_ns = original[0].t_ns
    silent, holey, blind, small = (camera.name for camera in shop.cameras[:4])
    dead, silent_plate, slow = (plate.plate for plate in shop.plates[:3])

    def change(o):
        t_s = (o.t_ns - start_ns) / 1e9
        match o:
            case Frame(camera=camera) if camera == silent:
                return replace(o, camera="cam99")
            case Frame(camera=camera) if camera == holey and 20.0 < t_s < 26.0:
                return None
            case Frame(camera=camera) if camera == blind:
                return replace(o, keypoints=o.keypoints[:0])
            case Frame(camera=camera) if camera == small:
                return replace(o, keypoints=o.keypoints * np.float32([0.5, 0.5, 1.0]))
            case ShelfReading(plate=plate) if plate == dead:
                return replace(o, samples=np.full_like(o.samples, 6067.0))
            case ShelfReading(plate=plate) if plate == silent_plate:
                return None
            case ShelfReading(plate=plate) if plate == slow:
                return replace(o, samples=o.samples[::2])
        return o

    folder = written(tmp_path, shop, original, change)
    with open(folder / "gate.jsonl", "a", encoding="utf-8") as file:
        scan = {"time": original[-1].t_ns, "gate": "back", "kind": "scan", "credential": {"type": "qr", "token": "x"}}
        file.write(json.dumps(scan) + "\n")
        scan |= {"gate": "entry", "credential": {"type": "face", "token": "x"}}
        file.write(json.dumps(scan) + "\n")
    findings = check(folder)
    reported = {(f.severity, f.rule, f.subject) for f in findings}
    assert reported >= {
        ("error", "unknown-camera", "camera cam99"),
        ("warning", "camera-silent", f"camera {silent}"),
        ("warning", "gaps", f"camera {holey}"),
        ("warning", "camera-without-people", f"camera {blind}"),
        ("warning", "another-picture", f"camera {small}"),
        ("warning", "plate-dead", f"plate {dead}"),
        ("warning", "plate-silent", f"plate {silent_plate}"),
        ("error", "weight-rate", f"plate {slow}"),
        ("error", "unknown-gate", "gate.jsonl"),
        ("warning", "credential", "gate entry"),
    }
    gap = next(f for f in findings if f.rule == "gaps")
    assert "1 gaps" in gap.message and "the longest 6." in gap.message
    assert "got 30.0" in single(findings, "weight-rate").message
    assert exit_code(findings) == 2


@pytest.mark.parametrize("n_plates", [1, 24])
def test_plates_in_kilograms_are_named(tmp_path, observations, n_plates):
    shop, original = observations
    heavy = {plate.plate for plate in shop.plates[:n_plates]}

    def change(o):
        if isinstance(o, ShelfReading) and o.plate in heavy:
            return replace(o, samples=(o.samples * np.float32(0.001)).astype(np.float32))
        return o

    finding = single(check(written(tmp_path, shop, original, change)), "weight-unit")
    assert finding.severity == "error" and "set weight_unit" in finding.message
    assert finding.subject == (f"plate {shop.plates[0].plate}" if n_plates == 1 else "plates")


def test_plates_in_the_unit_that_the_store_states_are_not_named(tmp_path, observations):
    shop, original = observations

    def change(o):
        return replace(o, samples=o.samples / np.float32(453.59237)) if isinstance(o, ShelfReading) else o

    in_pounds = shop.model_copy(update={"weight_unit": "lb"})
    assert not [f for f in check(written(tmp_path, in_pounds, original, change)) if f.rule == "weight-unit"]


def test_field_recordings_in_kilograms_are_named(data):
    for folder, subject in (("03-plates-in-kg", "plates"), ("04-one-plate-in-kg", "plate g3s3p01")):
        assert single(check(data / "field" / folder / "recording"), "weight-unit").subject == subject


@pytest.mark.parametrize(("late_s", "severity"), [(0.5, "warning"), (5.0, "error")])
def test_rows_out_of_order_are_counted(tmp_path, observations, late_s, severity):
    shop, original = observations
    readings = [o for o in original if isinstance(o, ShelfReading)]
    early = next(i for i, o in enumerate(readings) if o.t_ns - readings[0].t_ns > 20e9)
    end = next(i for i, o in enumerate(readings) if o.t_ns - readings[early].t_ns > late_s * 1e9)
    moved = [*readings[:early], *readings[early + 1 : end], readings[early], *readings[end:]]
    found = single(check(written(tmp_path, shop, moved)), "rows-out-of-order")
    assert (found.severity, found.subject) == (severity, "weights") and "got 1 before" in found.message


@pytest.mark.parametrize(("off_ms", "severity"), [(-60, "note"), (250, "warning")])
def test_a_clock_that_is_off_is_found(tmp_path, observations, off_ms, severity):
    shop, original = observations
    off = shop.cameras[1].name
    shifted = [
        replace(o, t_ns=o.t_ns + off_ms * 1_000_000) if isinstance(o, Frame) and o.camera == off else o
        for o in original
    ]
    found = single(check(written(tmp_path, shop, sorted(shifted, key=lambda o: o.t_ns))), "clock")
    assert (found.severity, found.subject) == (severity, f"camera {off}")
    reported_ms = float(found.message.split("its times ")[1].split(" ms")[0])
    assert ("ahead" if off_ms > 0 else "behind") in found.message and abs(reported_ms - abs(off_ms)) < 20.0


def test_a_camera_that_was_moved_is_found(tmp_path, observations):
    shop, original = observations
    moved = shop.cameras[3].name

    def change(o):
        if not isinstance(o, Frame) or o.camera != moved:
            return o
        return replace(o, keypoints=o.keypoints + np.float32([60.0, 0.0, 0.0]) * (o.keypoints[..., 2:] > 0))

    assert single(check(written(tmp_path, shop, original, change)), "camera-moved").subject == f"camera {moved}"


def test_damaged_and_unreadable_rows_are_reported_and_the_rest_is_examined(tmp_path, observations):
    folder = written(tmp_path, *observations)
    table = pq.read_table(folder / "weights.parquet")
    times = table.column("time").to_pylist()
    times[5], times[7] = None, 17
    pq.write_table(table.set_column(0, "time", pa.array(times, pa.int64())), folder / "weights.parquet")
    data = bytearray((folder / "detections.parquet").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (folder / "detections.parquet").write_bytes(data)
    findings = check(folder)
    assert {f.message for f in findings if f.rule == "rows-not-used"} == {
        "1 rows: null in a row",
        "1 rows: impossible time",
    }
    assert single(findings, "damaged").subject == "detections.parquet"


def test_a_recording_that_cannot_be_opened_still_gets_its_stores_findings(tmp_path, observations):
    folder = written(tmp_path, *observations)
    (folder / "gate.jsonl").write_text('{"time": 1}\n[]\n')
    findings = check(folder)
    assert {f.subject for f in findings if f.rule == "fault"} == {"gate.jsonl:1", "gate.jsonl:2"}
    assert {"not-looked-at", "coverage"} <= rules(findings, "note")
    plates = folder / "store" / "plates.csv"
    plates.write_text(plates.read_text().replace("20000.0", "-1", 2))
    findings = check(folder)
    assert len([f for f in findings if f.subject.startswith("store/plates.csv:")]) == 2
    assert "coverage" not in rules(findings)


def test_an_empty_recording_and_no_recording(tmp_path, store):
    RecordingWriter(tmp_path / "empty", store).close()
    findings = check(tmp_path / "empty")
    assert single(findings, "no-rows").severity == "warning"
    (tmp_path / "neither").mkdir()
    for path in (tmp_path / "neither", tmp_path / "nothing", tmp_path / "empty" / "gate.jsonl"):
        with pytest.raises(FusionError, match="pass a store folder"):
            check(path)


def test_a_torn_file_of_a_live_capture_is_reported(tmp_path, observations):
    shop, original = observations
    with RecordingWriter(tmp_path / "live", shop, segment_s=30.0) as writer:
        for observation in original:
            writer.write(observation)
    torn = sorted((tmp_path / "live" / "weights").glob("*.parquet"))[-1]
    torn.write_bytes(torn.read_bytes()[:-100])
    found = single(check(tmp_path / "live"), "damaged")
    assert found.subject == f"weights/{torn.name}"


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_draws_and_exits_like_a_linter(tmp_path, store, capsys):
    def command(*args):
        return main(["check", *map(str, args)]), *capsys.readouterr()

    store.save(tmp_path / "sound")
    code, out, _ = command(tmp_path / "sound", "--svg", tmp_path / "coverage.svg")
    assert code == 0 and "0 errors, 0 warnings" in out
    assert (tmp_path / "coverage.svg").read_text().startswith("<svg")
    store.model_copy(update={"zone": (), "gate": store.gate[:1]}).save(tmp_path / "doubtful")
    code, _, _ = command(tmp_path / "doubtful")
    assert code == 1
    shutil.copytree(tmp_path / "sound", tmp_path / "broken")
    (tmp_path / "broken" / "store.toml").write_text("format_version = 2\n")
    (tmp_path / "broken" / "products.csv").write_text("gtin,name\n")
    code, out, _ = command(tmp_path / "broken", "--json", "--svg", tmp_path / "none.svg")
    assert code == 2 and not (tmp_path / "none.svg").exists()
    found = json.loads(out)
    assert {row["severity"] for row in found} == {"error"} and len(found) > 5
    code, _, err = command(tmp_path / "nothing")
    assert code == 2 and "does not exist; pass a store folder or a recording" in err
