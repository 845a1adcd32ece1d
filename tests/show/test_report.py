"""The page of a run: complete, small, safe against hostile names, and working in a real browser."""

from __future__ import annotations

import base64
import json
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import browsing, complaints, in_browser, requested
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.engine import Engine
from fusion.errors import OrderError
from fusion.observations import Frame
from fusion.results import (
    Candidate,
    Evidence,
    People,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Reason,
    ReasonKind,
    Receipt,
    ReceiptLine,
    ReceiptStatus,
    RunEnd,
    RunSummary,
    ShelfCount,
    ShelfEventExplained,
    Warning,
    WarningKind,
)
from fusion.run import Run
from fusion.show.collected import Limits
from fusion.show.presence import PERIOD_NS
from fusion.show.report import Report
from fusion.simulation import Scenario, Simulation, demo_store
from fusion.store.models import Camera, Facing, Gate, Obstacle, Plate, Product, Store, Zone

T_NS = 1_772_528_646_000_000_000
S_NS = 10**9
COLA, BREAD = "4006381333931", "96385074"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&amp;\u2028"
SUMMARY = RunSummary(
    "0.1.0", "shop", 1234, 567, 8.9, 4.5, {"p50": 1500.0, "p99": 4000.0, "max": 9000.0}, {"weights: repeated": 3}
)


def make_store(name: str = "Shop", product: str = "Cola") -> Store:
    """A store with any names: pages trust none, though a store folder holds no control characters."""
    camera = Camera(
        name="cam1",
        size=(1280, 720),
        matrix=((700.0, 0.0, 640.0), (0.0, 700.0, 360.0), (0.0, 0.0, 1.0)),
        distortions=(0.0, 0.0, 0.0, 0.0, 0.0),
        rotation=(2.2, 0.0, 0.0),
        translation=(-2.0, 1.0, 3.0),
    )
    prices = {COLA: (product, 249, 19.0), BREAD: ("Bread", 199, 7.0)}
    return Store(
        format_version=1,
        id="shop",
        name="Shop",
        currency="EUR",
        timezone="Europe/Berlin",
        floor=((0.0, 0.0), (6.0, 0.0), (6.0, 4.0), (0.0, 4.0)),
        keypoints="coco17",
        gate=(
            Gate(id="door", direction="both", line=((0.0, 2.0), (0.0, 1.0)), credentials=("qr",)).model_copy(
                update={"id": name}
            ),
            Gate(id="exit", direction="out", line=((6.0, 1.0), (6.0, 2.0)), credentials=("open",)),
        ),
        zone=(
            Zone(id="pay", kind="payment", polygon=((4.0, 0.5), (5.0, 0.5), (5.0, 1.5), (4.0, 1.5))).model_copy(
                update={"id": name}
            ),
        ),
        obstacle=Obstacle(boxes=((1.0, 3.0, 4.0, 3.6, 1.8),)),
        cameras=(camera,),
        plates=tuple(
            Plate(
                plate=f"p{i}{level}", x=1.5 + i, y=3.2, z=0.5 * level, width=0.8, depth=0.4, yaw=0.1 * i, capacity_g=2e4
            )
            for i in range(3)
            for level in range(2)
        ),
        products=tuple(
            Product(gtin=gtin, name="x", weight_g=500.0, weight_sd_g=2.0, price=price, vat_rate=rate).model_copy(
                update={"name": text}
            )
            for gtin, (text, price, rate) in prices.items()
        ),
        planogram=(Facing(plate="p00", gtin=COLA, stock=5),),
    ).model_copy(update={"name": name})


def people(t_ns: int, *spots: tuple[int, float, float], confirmed: bool = True) -> People:
    n = len(spots)
    return People(
        t_ns,
        np.array([track for track, _, _ in spots], np.int64),
        np.full(n, confirmed),
        np.array([[x, y] for _, x, y in spots], np.float64).reshape(-1, 2),
        np.full(n, 0.05),
        np.full((n, 17, 3), np.nan),
        np.full((n, 17), np.nan),
        np.full(n, t_ns),
        np.ones(n),
    )


def filled(store: Store, account: str = "alice") -> Report:
    """Half a minute: one shopper takes and puts back; one unidentified visitor; one member of staff."""
    report = Report(store, f"Report of {store.name}")
    report.add(people(T_NS, (1, -1.0, 1.5)))
    report.add(PersonEntered(T_NS + S_NS, 1, "entry", account, "visit-1"))
    report.add(PersonEntered(T_NS + 2 * S_NS, 2, "entry", None, "visit-2"))
    report.add(PersonEntered(T_NS + 2 * S_NS, 3, "entry", "badge-of-eve", None, staff=True))
    for step in range(1, 300):
        t = step / 10
        spots = [(1, min(0.2 * t, 3.0), 1.5 + 0.05 * t), (2, 3.0, 0.5), (3, 5.0 - 0.1 * t, 2.0)]
        report.add(people(T_NS + step * S_NS // 10, *spots))
    report.add(Picked(T_NS + 9 * S_NS, "p00", COLA, 1, account, "visit-1", 0.7))
    sure = (Candidate(account, COLA, -1, 0.96, "visit-1"), Candidate(None, BREAD, -1, 0.03))
    report.add(ShelfEventExplained(T_NS + 9 * S_NS, "p00", -498.0, sure))
    report.add(PutBack(T_NS + 15 * S_NS, "p10", COLA, 1, account, "visit-1", 0.9))
    report.add(ShelfEventExplained(T_NS + 20 * S_NS, "p20", -4.0, ()))
    unlikely = (Candidate(account, BREAD, -1, 0.3, "visit-1"),)
    report.add(ShelfEventExplained(T_NS + 21 * S_NS, "p21", -30.0, unlikely))
    report.add(PersonLeft(T_NS + 28 * S_NS, 1, "exit", account, "visit-1"))
    lines = (ReceiptLine(COLA, 2, 249, 0.97), ReceiptLine(BREAD, 1, 199, 0.6))
    ends = (T_NS + S_NS, T_NS + 28 * S_NS, T_NS + 29 * S_NS)
    report.add(Receipt("visit-1", account, *ends, ReceiptStatus.SETTLED, (), "EUR", 697, lines))
    hostile = Reason(ReasonKind.NOTE, detail=HOSTILE)
    report.add(Receipt("visit-2", None, None, *ends[1:], ReceiptStatus.REVIEW, (hostile,), "EUR", 0, ()))
    # The account of a scan that no person was bound to, who may be the visitor without a credential.
    unbound = (Reason(ReasonKind.SCAN_UNBOUND, gate="entry"),)
    report.add(Receipt("visit-3", f"{account} too", None, *ends[1:], ReceiptStatus.REVIEW, unbound, "EUR", 0, ()))
    beside = Evidence(ends[1], "visit-3", f"{account} too", ReceiptStatus.REVIEW, unbound, (), (), (), 0, ("visit-2",))
    report.add(beside)
    report.add(Warning(T_NS + 5 * S_NS, WarningKind.BROKER_LOST, "cam1", detail=HOSTILE))
    return report


class Page(HTMLParser):
    """A page as a browser's parser sees it: elements, attributes, and the text of every script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self._in_script = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def written(report: Report, folder: Path, **options: Any) -> Page:
    report.write(folder / "report.html", SUMMARY, **options)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def decoded(data: dict[str, Any]) -> dict[int, dict[int, tuple[int, int]]]:
    """Positions in centimetres by track and tick, as the page's script reads them."""
    tracks: dict[int, dict[int, tuple[int, int]]] = {}
    for track, _, stretches in data["tracks"]:
        spots = tracks.setdefault(track, {})
        for tick, x, y, text in stretches:
            steps = np.frombuffer(base64.b64decode(text), np.int8).reshape(-1, 2).astype(np.int64)
            points = np.vstack([[[x, y]], np.array([[x, y]]) + np.cumsum(steps, axis=0)])
            assert not spots.keys() & range(tick, tick + len(points)), "two places at one time"
            spots |= {tick + i: (int(px), int(py)) for i, (px, py) in enumerate(points)}
    return tracks


# ---- what the page holds ---------------------------------------------------------------------------------------------


def test_the_page_is_complete_and_requests_nothing(tmp_path: Path) -> None:
    page = written(filled(make_store()), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "{{" not in re.sub(r"<script.*", "", text, flags=re.S)
    assert any(value.startswith("default-src 'none'") for _, name, value in page.attributes if name == "content")
    loads = [(t, n, v) for t, n, v in page.attributes if n in ("src", "href", "action", "poster", "srcset", "data")]
    assert loads == [("link", "href", "data:,")]
    assert not re.search(r"@import|url\((?!#)", text)
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_staff_credentials_are_not_on_the_page(tmp_path: Path) -> None:
    report = filled(make_store())
    report.write(tmp_path / "report.html", SUMMARY)
    report.write_svg(tmp_path / "plan.svg")
    assert all("badge-of-eve" not in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_the_data_holds_what_happened(tmp_path: Path) -> None:
    data = written(filled(make_store()), tmp_path).data
    assert [event[0] for event in data["events"]] == [9000, 15000, 20000, 21000]
    final, provisional, nothing, unlikely = data["events"]
    assert final[4] == [[0, COLA, -1, 0.96], [-1, BREAD, -1, 0.03]] and final[5] == 1
    assert provisional[4] == [[0, COLA, 1, 0.9]] and provisional[5] == 0
    assert nothing[4] == []
    # What the candidates leave is the probability that nothing moved; of a provisional event that is not known.
    assert [event[6] for event in data["events"]] == [0.01, 0.0, 1.0, 0.7] and unlikely[4] == [[0, BREAD, -1, 0.3]]
    assert [visit[:3] for visit in data["visits"]] == [
        ["visit-1", "alice", 0],
        ["visit-2", None, 0],
        [None, None, 1],
        ["visit-3", "alice too", 0],
    ]
    assert [(r["status"], r["total"], r["who"], r.get("unidentified")) for r in data["receipts"]] == [
        ("settled", 697, 0, None), ("review", 0, 1, None), ("review", 0, 3, [1]),
    ]  # fmt: skip
    assert data["summary"]["ignored"] == {"weights: repeated": 3}
    assert data["names"] == {COLA: "Cola", BREAD: "Bread"}
    assert (data["start_ms"], data["length_ms"]) == (T_NS // 10**6, 29900)


def test_a_report_needs_the_end_of_the_run_or_its_figures(tmp_path: Path) -> None:
    report = filled(make_store())
    with pytest.raises(OrderError, match="summary: want the figures of the run"):
        report.write(tmp_path / "report.html")
    report.add(RunEnd(SUMMARY, (ShelfCount("p00", COLA, 3, 0, True, "ok", 0.9),)))
    report.write(tmp_path / "report.html")
    data = Page((tmp_path / "report.html").read_text(encoding="utf-8")).data
    assert data["summary"]["frames"] == SUMMARY.frames
    assert data["shelves"] == [["p00", COLA, 3, 0, 1, "ok", 0.9]]


def test_receipts_are_compared_with_the_truth(tmp_path: Path) -> None:
    report = filled(make_store())
    truth = [
        {"account": "alice", "enter": T_NS, "exit": T_NS + 28 * S_NS, "items": {COLA: 1, BREAD: 1}},
        {"account": "bob", "enter": T_NS, "exit": T_NS + 25 * S_NS, "items": {COLA: 1}},
    ]
    data = written(report, tmp_path, truth=truth).data
    assert [r.get("difference") for r in data["receipts"]] == [[[COLA, 1]], [], []]
    assert data["missed"] == [{"account": "bob", "exit": 25000, "difference": [[COLA, -1]]}]
    assert "difference" not in written(report, tmp_path).data["receipts"][0]


@given(
    speed=st.floats(0.0, 12.0),
    rate_hz=st.sampled_from([3.0, 5.0, 12.5, 30.0]),
    gap=st.tuples(st.integers(0, 80), st.integers(0, 60)),
)
@settings(max_examples=40, deadline=None)
def test_paths_are_kept_to_the_centimetre(speed: float, rate_hz: float, gap: tuple[int, int]) -> None:
    report = Report(make_store())
    n = 100

    def spot(t_ns: int) -> tuple[float, float]:
        t = (t_ns - T_NS) / 1e9
        return 3.0 + speed * np.sin(t), 2.0 + 0.5 * np.cos(3 * t)

    times = [T_NS + round(i * 1e9 / rate_hz) for i in range(n) if not gap[0] <= i < sum(gap)]
    for t_ns in times:
        report.add(people(t_ns, (7, *spot(t_ns))))
    (spots,) = decoded(report.data(SUMMARY)).values()
    kept: dict[int, int] = {}
    for t_ns in times:
        kept.setdefault((t_ns - times[0]) // PERIOD_NS, t_ns)
    assert kept.keys() <= spots.keys()
    for tick, t_ns in kept.items():
        assert np.allclose(np.array(spots[tick]) / 100, spot(t_ns), atol=0.00501)
    # Interpolated ticks lie in gaps of at most a second.
    ticks = sorted(kept)
    for tick in spots.keys() - kept.keys():
        before = max(t for t in ticks if t < tick)
        after = min(t for t in ticks if t > tick)
        assert after - before <= 5


def test_memory_and_page_stay_bounded(tmp_path: Path) -> None:
    report = Report(make_store(), limits=Limits(samples=3000, events=20))
    for step in range(4000):
        angle = step / 40
        spots = [(k, 3 + np.sin(angle + k), 2 + np.cos(angle + k)) for k in range(4)]
        report.add(people(T_NS + step * S_NS // 5, *spots))
        if step % 100 == 0:
            report.add(ShelfEventExplained(T_NS + step * S_NS // 5, "p00", -5.0, ()))
    assert report.n_samples <= 3000
    data = written(report, tmp_path).data
    assert data["period_ms"] == 1600 and data["left_out"] == {"events": 20}
    for track, spots in decoded(data).items():
        for tick, spot in spots.items():
            angle = tick * 8 / 40 + track
            assert np.allclose(np.array(spot) / 100, [3 + np.sin(angle), 2 + np.cos(angle)], atol=0.01)


def test_an_hour_of_a_busy_store_stays_small(tmp_path: Path) -> None:
    report = Report(make_store())
    rng = np.random.default_rng(5)
    spots = rng.uniform(0, 4, (12, 2))
    for step in range(3600 * 5):
        spots = np.clip(spots + rng.normal(0, 0.2, spots.shape), 0, 6)
        report.add(people(T_NS + step * S_NS // 5, *((k + 12 * (step // 900), x, y) for k, (x, y) in enumerate(spots))))
        if step % 5 == 0:
            candidates = tuple(Candidate(f"account {k}", COLA, -1, 0.2, f"visit {k}") for k in range(4))
            report.add(ShelfEventExplained(T_NS + step * S_NS // 5, "p00", -498.0, candidates))
    report.write(tmp_path / "report.html", SUMMARY)
    assert (tmp_path / "report.html").stat().st_size < 5e6


@pytest.mark.parametrize("with_results", [False, True])
def test_stores_without_gates_cameras_or_plates_have_a_page(tmp_path: Path, with_results: bool) -> None:
    bare = make_store().model_copy(
        update={"gate": (), "zone": (), "obstacle": Obstacle(), "cameras": (), "plates": (), "planogram": ()}
    )
    report = filled(bare) if with_results else Report(bare)
    data = written(report, tmp_path).data
    assert all(event[2] is None for event in data["events"])
    report.write_svg(tmp_path / "plan.svg")
    ET.parse(tmp_path / "plan.svg")


def test_people_without_a_position_are_left_out() -> None:
    report = Report(make_store())
    report.add(people(T_NS, (1, np.nan, 1.0)))
    report.add(people(T_NS + S_NS, (2, 1.0, 1.0), confirmed=False))
    report.add(people(T_NS + 2 * S_NS, (3, 1e30, -1e30), (4, 1.0, 1.0)))
    assert decoded(report.data(SUMMARY)).keys() == {3, 4}


# ---- hostile text ----------------------------------------------------------------------------------------------------


def test_names_cannot_break_out(tmp_path: Path) -> None:
    store = make_store(HOSTILE, HOSTILE)
    page = written(filled(store, HOSTILE), tmp_path)
    assert len(page.scripts) == 2
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    clean = HOSTILE.replace("\u2028", "\ufffd")
    assert page.data["names"][COLA] == clean and page.data["visits"][0][1] == clean
    assert not re.search("[<>\u2028]", page.scripts[0])


def test_the_picture_is_well_formed_whatever_names_contain(tmp_path: Path) -> None:
    report = filled(make_store(HOSTILE + "\x00\x1b"), HOSTILE)
    report.write_svg(tmp_path / "plan.svg", until_s=12.0)
    root = ET.parse(tmp_path / "plan.svg").getroot()
    tags = [element.tag.split("}")[1] for element in root.iter()]
    assert "script" not in tags and "image" not in tags
    assert sum(element.get("class", "").startswith("path") for element in root.iter()) == 3
    assert sum(element.get("class", "").startswith("dot") for element in root.iter()) == 3
    assert [element.get("class") for element in root.iter() if element.get("class") in ("taken", "returned")] == [
        "taken"
    ]


# ---- in a real browser -----------------------------------------------------------------------------------------------


@dataclass
class Simulated:
    """A report of a simulated run, with the engine behind it."""

    report: Report
    engine: Engine
    summary: RunSummary
    shelves: list[ShelfCount]


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    """A minute with an engine that is asked for evidence and health, and a camera that dies."""
    store = demo_store(n_cameras=6, n_plates=24)
    scenario = Scenario(seed=11, minutes=1.0, shoppers=3)
    dead_ns = scenario.start_ns + 30 * S_NS
    observations = (
        observation
        for observation in Simulation(store, scenario).observations()
        if not (isinstance(observation, Frame) and observation.camera == "cam02" and observation.t_ns > dead_ns)
    )
    run = Run(store, observations)
    report = Report(store, HOSTILE, run.engine)
    for result in run.results():
        report.add(result)
    for result in run.finish():
        report.add(result)
    return Simulated(report, run.engine, run.summary(), run.engine.shelf_state())


def test_every_line_of_a_receipt_has_its_evidence(simulated: Simulated) -> None:
    data = simulated.report.data(simulated.summary, shelves=simulated.shelves)
    kept = {row[0]: row for row in json.loads(data["evidence"])}
    assert len(data["receipts"]) == 3
    n_lines = 0
    for receipt in data["receipts"]:
        bundle = simulated.engine.evidence(receipt["visit"])
        assert bundle is not None
        events = {event.event_id: event for event in bundle.events}
        for gtin, *_ in receipt["lines"]:
            n_lines += 1
            mine = [
                event
                for event in receipt["evidence"]
                if any(who == receipt["who"] and product == gtin for who, product, _, _ in event[1])
            ]
            assert mine, "a line without a shelf event"
            for event_id, alternatives, nothing, wrists, _, _ in mine:
                assert sum(alternative[3] for alternative in alternatives) + nothing <= 1.001
                _, _, _, traces, paths = kept[event_id]
                assert [path[0] for path in paths] == [track for track, _ in wrists]
                for (_, _, _, _, unit_g, text), trace in zip(traces, events[event_id].traces):
                    grams = np.frombuffer(base64.b64decode(text), "<i2") * unit_g
                    assert np.allclose(grams, np.array(trace.grams) - trace.grams[0], atol=0.51 * unit_g)
                for (_, _, left, _), path in zip(paths, events[event_id].wrists):
                    for place, kept_cm in zip(path.left_m, np.frombuffer(base64.b64decode(left), "<i2").reshape(-1, 3)):
                        wanted_cm = (-32768,) * 3 if place is None else 100 * np.array(place)
                        assert np.allclose(kept_cm, wanted_cm, atol=0.51)
    assert n_lines >= 4, "too few lines to prove anything"


def test_health_and_latency_are_kept_over_time(simulated: Simulated) -> None:
    data = simulated.report.data(simulated.summary, shelves=simulated.shelves)
    health = data["health"]
    assert len(health["times"]) >= 10
    assert health["cameras"] == [camera.name for camera in simulated.report.store.cameras]
    states = {
        name: np.frombuffer(base64.b64decode(text), "<i2").tolist()
        for name, text in zip(health["cameras"], health["states"])
    }
    down = health["camera_states"].index("down")
    assert down not in states["cam02"][:5] and states["cam02"][-1] == down
    assert all(down not in row for name, row in states.items() if name != "cam02")
    assert all(0 < p50 <= p99 <= longest for p50, p99, longest in health["step_us"][1:])
    assert len(data["shelves"]) == len(simulated.shelves) and sum(data["reached_s"]) > 1


def test_health_of_a_long_run_is_kept_more_coarsely() -> None:
    store = demo_store(n_cameras=6, n_plates=24)
    run = Run(store, Simulation(store, Scenario(seed=11, minutes=1.0, shoppers=2)).observations())
    report = Report(store, None, run.engine, Limits(health_samples=8, evidence_bytes=3000))
    for result in run.results():
        report.add(result)
    data = report.data(run.summary())
    assert len(data["health"]["times"]) <= 8 and np.diff(data["health"]["times"]).min() >= 9000
    assert report.left_out["evidence"] > 0 and len(data["evidence"]) < 4000


@in_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_works_in_a_browser(tmp_path: Path, width: int, simulated: Simulated) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    simulated.report.write(tmp_path / "report.html", simulated.summary, truth=[], shelves=simulated.shelves)
    with browsing(width) as driver:
        driver.get((tmp_path / "report.html").as_uri())

        def all_of(selector: str) -> list[Any]:
            return driver.find_elements(By.CSS_SELECTOR, selector)

        def places() -> dict[str, tuple[str, str]]:
            """Where everybody's mark is, by name."""
            places_now = {}
            for group in all_of("#layer-people g"):
                mark = group.find_element(By.CSS_SELECTOR, ".mark")
                name = group.find_element(By.CSS_SELECTOR, "title").get_attribute("textContent")
                places_now[name] = (mark.get_attribute("cx"), mark.get_attribute("cy"))
            return places_now

        def put(name: str, value: object, event: str) -> None:
            driver.execute_script(
                "const node = document.getElementById(arguments[0]); node.value = arguments[1];"
                "node.dispatchEvent(new Event(arguments[2]))",
                name, value, event,
            )  # fmt: skip

        def now() -> float:
            return float(driver.find_element(By.ID, "time").get_attribute("value"))

        assert driver.execute_script("return document.documentElement.dataset.ready") == "true"
        assert driver.title != "owned" and not all_of("img, iframe, script[src]")
        assert driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
        put("time", 20_000, "input")
        before = places()
        put("time", 22_000, "input")
        after = places()
        assert any(before[name] != after[name] for name in before.keys() & after.keys()), "no mark moved"
        # Keys on the slider: five seconds forward, to the start, to the next event.
        slider = driver.find_element(By.ID, "time")
        slider.send_keys(Keys.ARROW_RIGHT)
        assert abs(now() - 27_000) < 300
        slider.send_keys(Keys.HOME)
        assert now() == 0
        slider.send_keys("n")
        first_ms = Page((tmp_path / "report.html").read_text(encoding="utf-8")).data["events"][0][0]
        assert abs(now() - first_ms - 50) < 150
        slider.send_keys(Keys.SPACE)
        deadline_s = time.monotonic() + 60
        while now() <= first_ms + 300:
            assert time.monotonic() < deadline_s, "the page does not play"
        slider.send_keys(Keys.SPACE)
        # A list by its arrow keys: from event to event, with the plan.
        driver.find_element(By.ID, "activity").send_keys(Keys.HOME)
        driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
        second_ms = Page((tmp_path / "report.html").read_text(encoding="utf-8")).data["events"][1][0]
        assert abs(now() - second_ms - 50) < 150
        assert driver.switch_to.active_element.get_attribute("data-row") == "1"
        # A person's values, and a part of the plan.
        all_of("#present .person")[0].click()
        chosen = driver.find_element(By.ID, "chosen").text
        assert "Place" in chosen and " m/s" in chosen and "Holds" in chosen
        shown = driver.execute_script("return document.getElementById('plan').viewBox.baseVal.width")
        driver.find_element(By.ID, "zoom-in").click()
        part = driver.execute_script("return document.getElementById('plan').viewBox.baseVal.width")
        assert abs(part - shown / 1.5) < 0.1
        driver.find_element(By.ID, "zoom-all").click()
        assert driver.execute_script("return document.getElementById('plan').viewBox.baseVal.width") == shown
        # A receipt, its lines, and their evidence.
        all_of(".receipt summary")[0].click()
        wait = WebDriverWait(driver, 30)
        wait.until(lambda _: all_of(".why-line summary"))
        all_of(".why-line summary")[0].click()
        wait.until(lambda _: all_of(".evidence polyline.weight"))
        assert all_of(".evidence polyline.wrist")
        assert "%" in all_of(".evidence .alternatives")[0].text
        for kind in ("presence", "reaches"):
            put("heat", kind, "change")
            assert all_of("#layer-heat .hot") and "in all" in driver.find_element(By.ID, "scale").text
        assert "! down" in driver.find_element(By.ID, "health").text
        assert all_of("#stock-filters button")
        driver.save_screenshot(str(tmp_path / f"report_{width}.png"))
        assert complaints(driver) == []
        assert {url for url in requested(driver) if not url.startswith(("file:", "data:"))} == set()


@in_browser
def test_hostile_names_do_nothing_in_a_browser(tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    written(filled(make_store(HOSTILE, HOSTILE), HOSTILE), tmp_path, truth=[])
    with browsing(1440) as driver:
        driver.get((tmp_path / "report.html").as_uri())
        for receipt in driver.find_elements(By.CSS_SELECTOR, ".receipt summary"):
            receipt.click()
        assert driver.title.startswith("Report of </script>")
        assert not driver.find_elements(By.CSS_SELECTOR, "img, iframe, script[src]")
        assert "<script>" in driver.find_element(By.ID, "warnings").text
        settled, review, unbound = (node.text for node in driver.find_elements(By.CSS_SELECTOR, ".receipt"))
        assert "6.97 EUR" in settled and "settled" in settled and "2 × 2.49" in settled
        assert "entry not seen" in review and "<img src=x" in review
        assert "without a credential:" in unbound and "unknown visit-2" in unbound
        assert "Nothing was taken" not in unbound
        driver.save_screenshot(str(tmp_path / "unidentified.png"))
        # The most probable explanation is the headline, also where that is that nothing moved.
        headlines = [node.text for node in driver.find_elements(By.CSS_SELECTOR, ".event .product")]
        assert headlines[-2:] == ["nothing moved", "nothing moved"], headlines
        last = driver.find_elements(By.CSS_SELECTOR, ".event")[-1].text
        assert "? 70 %" in last and "30 %" in last
        marks = driver.find_elements(By.CSS_SELECTOR, "#layer-people .mark")
        assert {mark.tag_name for mark in marks} == {"circle", "rect"}, "staff and others differ by shape"
        assert complaints(driver) == []
