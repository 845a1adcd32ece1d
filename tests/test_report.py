"""The page of a run: whole, small, safe against what names contain, and alive in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fusion.report
from fusion.config import Camera, Facing, Gate, Obstacle, Plate, Product, Store, Zone
from fusion.report import Report
from fusion.results import (
    Candidate,
    People,
    PersonEntered,
    PersonLeft,
    Picked,
    PutBack,
    Receipt,
    ReceiptLine,
    RunSummary,
    ShelfEventExplained,
    Warning,
)

T_NS = 1_772_528_646_000_000_000
S_NS = 10**9
COLA, BREAD = "4006381333931", "96385074"
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">'\"&amp;\u2028"
SUMMARY = RunSummary(
    "0.1.0", "shop", 1234, 567, 8.9, 4.5, {"p50": 1500.0, "p99": 4000.0, "max": 9000.0}, {"weights: repeated": 3}
)


def make_store(name: str = "Shop", product: str = "Cola") -> Store:
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
        name=name,
        currency="EUR",
        timezone="Europe/Berlin",
        floor=((0.0, 0.0), (6.0, 0.0), (6.0, 4.0), (0.0, 4.0)),
        keypoints="coco17",
        gate=(
            Gate(id=name, direction="both", line=((0.0, 2.0), (0.0, 1.0)), credentials=("qr",)),
            Gate(id="exit", direction="out", line=((6.0, 1.0), (6.0, 2.0)), credentials=("open",)),
        ),
        zone=(Zone(id=name, kind="payment", polygon=((4.0, 0.5), (5.0, 0.5), (5.0, 1.5), (4.0, 1.5))),),
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
            Product(gtin=gtin, name=text, weight_g=500.0, weight_sd_g=2.0, price=price, vat_rate=rate)
            for gtin, (text, price, rate) in prices.items()
        ),
        planogram=(Facing(plate="p00", gtin=COLA, stock=5),),
    )


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
    """Half a minute: one shopper takes and puts back, one unknown person, one of the staff."""
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
    report.add(PersonLeft(T_NS + 28 * S_NS, 1, "exit", account, "visit-1"))
    lines = (ReceiptLine(COLA, 2, 249, 0.97), ReceiptLine(BREAD, 1, 199, 0.6))
    ends = (T_NS + S_NS, T_NS + 28 * S_NS, T_NS + 29 * S_NS)
    report.add(Receipt("visit-1", account, *ends, "settled", None, "EUR", 697, lines))
    report.add(Receipt("visit-2", None, None, *ends[1:], "review", HOSTILE, "EUR", 0, ()))
    report.add(Warning(T_NS + 5 * S_NS, "camera down", "cam1", HOSTILE))
    return report


class Page(HTMLParser):
    """What a browser's parser sees: elements, attributes, and the text of every script."""

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
    found: dict[int, dict[int, tuple[int, int]]] = {}
    for track, _, stretches in data["tracks"]:
        spots = found.setdefault(track, {})
        for tick, x, y, text in stretches:
            steps = np.frombuffer(base64.b64decode(text), np.int8).reshape(-1, 2).astype(np.int64)
            points = np.vstack([[[x, y]], np.array([[x, y]]) + np.cumsum(steps, axis=0)])
            assert not spots.keys() & range(tick, tick + len(points)), "two places at one time"
            spots |= {tick + i: (int(px), int(py)) for i, (px, py) in enumerate(points)}
    return found


# ---- what the page holds ---------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    page = written(filled(make_store()), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "{{" not in re.sub(r"<script.*", "", text, flags=re.S)
    assert any(value.startswith("default-src 'none'") for _, name, value in page.attributes if name == "content")
    loads = [(t, n, v) for t, n, v in page.attributes if n in ("src", "href", "action", "poster", "srcset", "data")]
    assert loads == [("link", "href", "data:,")]
    assert not re.search(r"@import|url\((?!#)", text)
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_what_staff_show_at_the_gate_is_not_on_the_page(tmp_path: Path) -> None:
    report = filled(make_store())
    report.write(tmp_path / "report.html", SUMMARY)
    report.write_svg(tmp_path / "plan.svg")
    assert all("badge-of-eve" not in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


def test_the_data_says_what_happened(tmp_path: Path) -> None:
    data = written(filled(make_store()), tmp_path).data
    assert [event[0] for event in data["events"]] == [9000, 15000, 20000]
    final, provisional, nothing = data["events"]
    assert final[4] == [[0, COLA, -1, 0.96], [-1, BREAD, -1, 0.03]] and final[5] == 1
    assert provisional[4] == [[0, COLA, 1, 0.9]] and provisional[5] == 0
    assert nothing[4] == []
    assert [visit[:3] for visit in data["visits"]] == [
        ["visit-1", "alice", 0],
        ["visit-2", None, 0],
        [None, None, 1],
    ]
    assert [(r["status"], r["total"], r["who"]) for r in data["receipts"]] == [("settled", 697, 0), ("review", 0, 1)]
    assert data["summary"]["ignored"] == {"weights: repeated": 3}
    assert data["names"] == {COLA: "Cola", BREAD: "Bread"}
    assert (data["start_ms"], data["length_ms"]) == (T_NS // 10**6, 29900)


def test_receipts_are_compared_with_the_truth(tmp_path: Path) -> None:
    report = filled(make_store())
    truth = [
        {"account": "alice", "enter": T_NS, "exit": T_NS + 28 * S_NS, "items": {COLA: 1, BREAD: 1}},
        {"account": "bob", "enter": T_NS, "exit": T_NS + 25 * S_NS, "items": {COLA: 1}},
    ]
    data = written(report, tmp_path, truth=truth).data
    assert [r.get("difference") for r in data["receipts"]] == [[[COLA, 1]], []]
    assert data["missed"] == [{"account": "bob", "exit": 25000, "difference": [[COLA, -1]]}]
    assert "difference" not in written(report, tmp_path).data["receipts"][0]


@given(
    speed=st.floats(0.0, 12.0),
    rate_hz=st.sampled_from([3.0, 5.0, 12.5, 30.0]),
    hole=st.tuples(st.integers(0, 80), st.integers(0, 60)),
)
@settings(max_examples=40, deadline=None)
def test_paths_are_kept_to_the_centimetre(speed: float, rate_hz: float, hole: tuple[int, int]) -> None:
    report = Report(make_store())
    n = 100

    def spot(t_ns: int) -> tuple[float, float]:
        t = (t_ns - T_NS) / 1e9
        return 3.0 + speed * np.sin(t), 2.0 + 0.5 * np.cos(3 * t)

    times = [T_NS + round(i * 1e9 / rate_hz) for i in range(n) if not hole[0] <= i < sum(hole)]
    for t_ns in times:
        report.add(people(t_ns, (7, *spot(t_ns))))
    (spots,) = decoded(report._data(SUMMARY, None)).values()
    kept: dict[int, int] = {}
    for t_ns in times:
        kept.setdefault((t_ns - times[0]) // fusion.report.PERIOD_NS, t_ns)
    assert kept.keys() <= spots.keys()
    for tick, t_ns in kept.items():
        assert np.allclose(np.array(spots[tick]) / 100, spot(t_ns), atol=0.00501)
    # What was filled in lies in holes of a second at most.
    ticks = sorted(kept)
    for tick in spots.keys() - kept.keys():
        before = max(t for t in ticks if t < tick)
        after = min(t for t in ticks if t > tick)
        assert after - before <= 5


def test_memory_and_page_stay_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion.report, "SAMPLES_MAX", 3000)
    monkeypatch.setattr(fusion.report, "EVENTS_MAX", 20)
    report = Report(make_store())
    for step in range(4000):
        angle = step / 40
        spots = [(k, 3 + np.sin(angle + k), 2 + np.cos(angle + k)) for k in range(4)]
        report.add(people(T_NS + step * S_NS // 5, *spots))
        if step % 100 == 0:
            report.add(ShelfEventExplained(T_NS + step * S_NS // 5, "p00", -5.0, ()))
    assert sum(len(path.ticks) for path in report._paths.values()) <= 3000
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
def test_stores_without_this_or_that_have_a_page(tmp_path: Path, with_results: bool) -> None:
    bare = make_store().model_copy(
        update={"gate": (), "zone": (), "obstacle": Obstacle(), "cameras": (), "plates": (), "planogram": ()}
    )
    report = filled(bare) if with_results else Report(bare)
    data = written(report, tmp_path).data
    assert all(event[2] is None for event in data["events"])
    report.write_svg(tmp_path / "plan.svg")
    ET.parse(tmp_path / "plan.svg")


def test_people_without_a_place_are_left_out() -> None:
    report = Report(make_store())
    report.add(people(T_NS, (1, np.nan, 1.0)))
    report.add(people(T_NS + S_NS, (2, 1.0, 1.0), confirmed=False))
    report.add(people(T_NS + 2 * S_NS, (3, 1e30, -1e30), (4, 1.0, 1.0)))
    assert decoded(report._data(SUMMARY, None)).keys() == {3, 4}


# ---- hostile text ----------------------------------------------------------------------------------------------------


def test_names_cannot_break_out(tmp_path: Path) -> None:
    store = make_store(HOSTILE, HOSTILE)
    page = written(filled(store, HOSTILE), tmp_path)
    assert len(page.scripts) == 2
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    clean = HOSTILE.replace("\u2028", "\ufffd")
    assert page.data["names"][COLA] == clean and page.data["visits"][0][1] == clean
    assert not re.search("[<>\u2028]", page.scripts[0])


def test_the_picture_is_well_formed_whatever_names_hold(tmp_path: Path) -> None:
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# Opens the report in a frame of a given width, does a step, and leaves what it finds as JSON in its own document.
DRIVER = """<!doctype html><meta charset="utf-8"><iframe id="f" style="width:{width}px;height:1600px;border:0"
src="report.html"></iframe><pre id="found"></pre><script>
const frame = document.getElementById("f"), errors = [];
frame.addEventListener("load", async () => {
  const page = frame.contentDocument, view = frame.contentWindow, $ = (id) => page.getElementById(id);
  view.addEventListener("error", (event) => errors.push(event.message));
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const key = (name, more) =>
    page.body.dispatchEvent(new view.KeyboardEvent("keydown", { key: name, bubbles: true, ...more }));
  const where = () => Object.fromEntries([...page.querySelectorAll("#layer-people g")].map((g) => {
    const mark = g.querySelector(".mark");
    return [g.querySelector("title").textContent, [mark.getAttribute("cx") ?? mark.getAttribute("x"), mark.tagName]];
  }));
  const slide = (ms) => { $("time").value = ms; $("time").dispatchEvent(new view.Event("input")); };
  const found = { ready: page.documentElement.dataset.ready, title: page.title, steps: [] };
  const labels = () => page.querySelectorAll("#layer-events .what").length;
  const note = (name) => found.steps.push([name, Number($("time").value), where(), labels()]);
  await wait(100);
  note("start");
  slide(4000); note("slid");
  slide(20000); note("slid on");
  key("ArrowLeft"); note("left");
  key("ArrowRight", { shiftKey: true }); note("right");
  key("p"); note("previous event");
  // Under virtual time the browser paints no frames and so asks nobody to draw one.
  view.requestAnimationFrame = (draw) => view.setTimeout(() => draw(view.performance.now()), 16);
  slide(1000);
  key(" "); found.playing = $("play").getAttribute("aria-label");
  for (let tries = 0; tries < 40 && Number($("time").value) <= 1200; tries++) await wait(50);
  key(" "); note("played");
  found.rows = page.querySelectorAll(".event").length;
  page.querySelector(".event").click(); note("event chosen");
  for (const receipt of page.querySelectorAll(".receipt")) receipt.querySelector("summary").click();
  await wait(100);
  found.receipts = [...page.querySelectorAll(".receipt")].map((node) => node.innerText);
  found.warnings = $("warnings").innerText;
  found.overflow = page.documentElement.scrollWidth - view.innerWidth;
  found.markup = page.querySelectorAll("img, iframe, script[src]").length;
  found.requests = view.performance.getEntriesByType("resource").map((entry) => entry.name);
  found.errors = errors;
  found.title = page.title;
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def driven(folder: Path, width: int) -> dict[str, Any]:
    (folder / "driver.html").write_text(DRIVER.replace("{width}", str(width)), encoding="utf-8")
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files", "--enable-logging=stderr",
        "--virtual-time-budget=6000", "--window-size=1440,1700", "--dump-dom", (folder / "driver.html").as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    content = re.search(r'<pre id="found">(.*?)</pre>', run.stdout, re.S)
    assert content is not None and content[1], run.stderr[-2000:]
    found: dict[str, Any] = json.loads(
        content[1].replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u00a0").replace("&amp;", "&")
    )
    return found


@in_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_lives_in_a_browser(tmp_path: Path, width: int) -> None:
    store = make_store(HOSTILE, HOSTILE)
    written(filled(store), tmp_path, truth=[])
    found = driven(tmp_path, width)
    assert found["ready"] == "true" and found["errors"] == [] and found["requests"] == []
    assert found["title"].startswith("Report of </script>") and found["markup"] == 0
    assert found["overflow"] <= 0
    steps = {name: (at, where, labels) for name, at, where, labels in found["steps"]}
    assert abs(steps["start"][0] - 9050) < 100 and steps["start"][2] == 1
    # Centimetres: at 4 s the shopper has come to x = 0.8 m, at 20 s to the end of the way.
    assert abs(float(steps["slid"][1]["alice"][0]) - 80) < 5
    assert abs(float(steps["slid on"][1]["alice"][0]) - 300) < 5
    assert steps["slid"][1]["staff 3"][1] == "rect" and steps["slid"][1]["unknown visit-2"][1] == "circle"
    assert abs(steps["left"][0] - 15000) < 150 and steps["right"][0] >= 29800
    assert abs(steps["previous event"][0] - 20050) < 150
    assert found["playing"] == "Pause" and steps["played"][0] > 1200
    assert found["rows"] == 3 and abs(steps["event chosen"][0] - 9050) < 150
    settled, review = found["receipts"]
    assert "6.97 EUR" in settled and "settled" in settled and "2 × 2.49" in settled
    assert "entry not seen" in review and "<img src=x" in review
    assert "<script>" in found["warnings"]
