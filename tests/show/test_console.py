"""The console's command, and the console in a real browser."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import complaints, in_browser, requested, set_look
from show.consoles import HOSTILE, PASSWORD, T_NS, EndedRun, evidence, review, serving, sign_in, stream

from fusion.commands.main import main
from fusion.files.results import ResultsWriter
from fusion.money.ledger import Ledger
from fusion.money.sales import Discount
from fusion.results import Reason, ReasonKind, Receipt, ReceiptLine, ReceiptStatus
from fusion.show.console.users import Users
from fusion.store.models import Store


def test_ending_the_console_does_not_wait_for_pages(tmp_path: Path, store: Store, users_file: Path) -> None:
    store.save(tmp_path / "store")
    Ledger.open(tmp_path / "ledger.sqlite", store).close()
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "fusion", "console", str(tmp_path / "store"), "--port", str(port)]
    command += ["--ledger", str(tmp_path / "ledger.sqlite"), "--users", str(users_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            deadline_s = time.monotonic() + 120
            while True:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                assert time.monotonic() < deadline_s and process.poll() is None
                time.sleep(0.05)
            with stream(port, sign_in(port)[1]) as messages:
                next(messages)
                process.send_signal(signal.SIGINT)
                process.wait(60)
        finally:
            process.kill()


def test_the_command_names_what_is_missing(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(tmp_path / "store")
    common = ["console", str(tmp_path / "store"), "--ledger"]
    books = str(tmp_path / "ledger.sqlite")
    assert main([*common, books]) == 2 and "the books do not exist" in capsys.readouterr().err
    assert main([*common, "postgresql://nowhere/x"]) == 2 and "--users" in capsys.readouterr().err
    Ledger.open(books, store).close()
    assert main([*common, books]) == 2 and "fusion users add" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 closed with the process
    add = ["users", "add", "anna", "--users", str(tmp_path / "users.json"), "--store", store.id]
    assert main(add) == 2 and "password" in capsys.readouterr().err
    Users(tmp_path / "users.json").add("anna", PASSWORD, store.id)
    assert main([*common, books, "--host", "0.0.0.0"]) == 2 and "--certificate" in capsys.readouterr().err
    assert main([*common, books, "--provider", "https://x"]) == 2
    assert "FUSION_PROVIDER_SECRET" in capsys.readouterr().err


class Page:
    """The console as a person sees it in a browser."""

    def __init__(self, driver: Any, origin: str, width: int = 1440) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        set_look(driver, width, dark=False)
        self.driver, self._wait = driver, WebDriverWait(driver, 30)
        driver.get(origin)
        self.found("[name=name]").send_keys("anna")
        self.found("[name=password]").send_keys(PASSWORD)
        self.found("button.primary").click()
        self.until(lambda: self.all("#reviews button, #reviews .empty"))

    def found(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        return str(self.found(selector).text)

    def until(self, condition: Callable[[], Any]) -> None:
        from selenium.common.exceptions import StaleElementReferenceException

        def holds(_: Any) -> Any:
            # The page draws itself again with every message.
            with suppress(StaleElementReferenceException):
                return condition()
            return False

        self._wait.until(holds)

    def press(self, *keys: str) -> None:
        """Press keys where the focus is: on the page, since the element there may be drawn anew meanwhile."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def choose(self, text: str) -> None:
        """Choose what a text says."""
        next(label for label in self.all("#choices label") if text in label.text).click()


@in_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_a_person_decides_in_a_browser(
    tmp_path: Path, store: Store, users_file: Path, ended_run: EndedRun, driver: Any, width: int
) -> None:
    # A run with doubtful visits, its results as a runner leaves them; the store and the reasons have hostile names.
    engine = ended_run.engine
    hostile = store.model_copy(update={"name": HOSTILE})
    with Ledger.open(tmp_path / "ledger.sqlite", hostile) as ledger:
        writer = ResultsWriter(tmp_path, store, engine.account_of)
        for result in ended_run.results:
            if isinstance(result, Receipt):
                reasons = (Reason(ReasonKind.NOTE, detail=HOSTILE),)
                doubted = dataclasses.replace(result, status=ReceiptStatus.REVIEW, reasons=reasons)
                ledger.post_receipt(doubted)
                bundle = engine.evidence(result.visit)
                assert bundle is not None
                writer.add(bundle)
        writer.close()
        waiting = ledger.reviews()
        assert len(waiting) == 3
        with serving(hostile, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served:
            page = Page(driver, served.origin, width)
            assert len(page.all("#reviews button")) == 3 and driver.title.startswith("(3) ")
            assert driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
            page.found("#reviews button").click()
            page.until(lambda: page.found("#review").is_displayed())
            first = waiting[0]
            assert first.visit in page.text("#review-meta") and len(page.text("#review-question")) > 10
            assert page.all("#review-evidence polyline.weight") and page.all("#review-evidence polyline.wrist")
            assert page.all("#review-evidence .front-view")
            # Where the plate came to rest, and where it was before, are both inside the picture of its weight.
            levels = page.all("#review-evidence .trace .level")
            assert levels and all(14 < float(line.get_attribute("y1")) < 60 for line in levels)
            driver.save_screenshot(str(tmp_path / f"review_{width}.png"))
            # Chosen, then booked; it stands there as it is in the books, and the next visit is one click away.
            assert not page.found("#book").is_enabled()
            page.choose("The bill as it stands")
            page.found("#book").click()
            page.until(lambda: ledger.standing(first.visit).status == "decided")  # type: ignore[union-attr]
            page.until(lambda: "anna" in page.text("#review-message") and "decided" in page.text("#review-name"))
            page.until(lambda: len(page.all("#reviews button")) == 2)
            page.found("#review-close").click()
            page.found(f"#reviews [data-visit='{waiting[1].visit}']").click()
            page.until(lambda: waiting[1].visit in page.text("#review-meta"))
            # One piece more, by hand; what that charges is the server's word.
            page.found("#editing > summary").click()
            page.all("#review-lines .stepper button")[1].click()
            page.until(lambda: page.found("#book").is_enabled())
            assert page.found("#reason").get_attribute("value") == "missed"
            page.found("#book").click()
            page.until(lambda: ledger.standing(waiting[1].visit).status == "decided")  # type: ignore[union-attr]
            page.found("#review-close").click()
            # Another console decides the third while it is on the screen.
            page.until(lambda: len(page.all("#reviews button")) == 1)
            page.found("#reviews button").click()
            page.until(lambda: waiting[2].visit in page.text("#review-meta"))
            ledger.decide(waiting[2].visit, "waive", by="ben", t_ns=T_NS)
            page.until(lambda: "ben" in page.text("#review-message"))
            assert not page.found("#book").is_enabled()
            corrected = ledger.standing(waiting[1].visit)
            assert corrected is not None
            pieces = sum(line.quantity for line in corrected.lines)
            assert pieces == 1 + sum(line.quantity for line in waiting[1].lines)
            decisions = [
                entry
                for standing in waiting
                for entry in ledger.entries(standing.visit)
                if entry.kind.startswith("decision")
            ]
            assert [entry.request["by"] for entry in decisions] == ["anna", "anna", "ben"]
            assert "owned" not in driver.title.split("<")[0] and not page.all("img, iframe")
            assert complaints(driver) == []
            assert all(url.startswith((served.origin, "data:")) for url in requested(driver))
            driver.get("about:blank")


@in_browser
@pytest.mark.attack(23)
def test_nothing_is_final_by_accident_and_nothing_old_looks_new(
    tmp_path: Path, store: Store, users_file: Path, driver: Any
) -> None:
    from selenium.webdriver.common.keys import Keys

    now_ns = [T_NS + 3600 * 10**9]
    with (
        Ledger.open(tmp_path / "ledger.sqlite", store) as ledger,
        closing(socket.socket(socket.AF_UNIX)) as listener,
    ):
        bill = review(store, "visit-1")
        ledger.post_receipt(bill)
        listener.bind(str(tmp_path / "live.sock"))
        listener.listen()
        with serving(
            store, ledger, users_file, feed=tmp_path / "live.sock", connect_every_s=0.05, undo_s=10.0,
            clock_ns=lambda: now_ns[0],
        ) as served:  # fmt: skip
            page = Page(driver, served.origin)
            empty = ledger.head().seq
            # Enter twice in the queue opens the visit and decides nothing; nor does any single key.
            driver.execute_script("document.querySelector('#reviews button').focus()")
            page.press(Keys.ENTER)
            page.until(lambda: "visit-1" in page.text("#review-meta"))
            for key in (Keys.ENTER, "a", "c", "w", "1", Keys.ENTER, Keys.ENTER):
                page.press(key)
            assert page.found("#choices input").is_selected(), "1 chooses the first"
            assert ledger.head().seq == empty
            # Booked, and Enter again and again: it waits ten seconds, and can be taken back.
            page.found("#book").send_keys(Keys.ENTER)
            page.until(lambda: page.found("#undo").is_displayed())
            page.press(Keys.ENTER)
            page.press(Keys.ENTER)
            (proposal,) = served.console.decisions.proposals.of("visit-1")
            assert proposal.state == "counting" and ledger.head().seq == empty + 1
            page.found("#undo").click()
            page.until(lambda: page.found("#book").is_displayed())
            (proposal,) = served.console.decisions.proposals.of("visit-1")
            assert proposal.state == "withdrawn" and ledger.standing("visit-1").status == "review"  # type: ignore[union-attr]
            # What is decided shows at once as decided, with who, and with its new amount.
            page.choose("Charge nothing")
            page.found("#book").click()
            page.until(lambda: page.found("#undo").is_displayed())
            now_ns[0] += 11 * 10**9
            page.until(lambda: "anna" in page.text("#bills") and "0.00" in page.text("#bills b"))
            page.until(lambda: page.text("#reviews").startswith("✓") and "decided" in page.text("#bills"))
            page.found("#review-close").click()
            # No runner yet: nothing is called fine. A runner: all is. Its end: the last state, as old.
            assert "fine" not in page.text("#sensors")
            runner = listener.accept()[0]
            health = {
                "cameras": [["cam01", "", T_NS // 10**6]], "plates": [], "links": [], "time": "", "time_since": None,
                "ms": T_NS // 10**6, "since": T_NS // 10**6,
            }  # fmt: skip
            shop: dict[str, Any] = {"who": {}, "carts": [], "gates": {}, "counts": {}}
            track, sure, place = (array.tobytes().hex() for array in (np.int64([1]), np.bool_([True]), np.ones((1, 2))))
            state = {"at": [T_NS // 10**6, track, sure, place]}

            def send(*lines: dict[str, Any]) -> bool:
                runner.sendall("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())
                return True

            send({"shop": shop}, {"health": health})
            page.until(lambda: send(state) and "fine" in page.text("#sensors"))
            listener.close()
            runner.close()
            page.until(lambda: "not running" in page.text("#live"))
            assert "fine" not in page.text("#sensors")
            assert f"{store.local_time(T_NS):%H:%M:%S}" in page.text("#floor-age")
            assert complaints(driver) == []
            driver.get("about:blank")


@in_browser
def test_by_keyboard_alone(tmp_path: Path, store: Store, users_file: Path, driver: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    first = store.products[0]
    with Ledger.open(tmp_path / "ledger.sqlite", store) as ledger:
        bill = review(store, "visit-1")
        # Three pieces, one of them cheaper than the others, less an offer.
        lines = (*bill.lines, ReceiptLine(first.gtin, 1, first.price - 7, 0.9))
        less = (Discount("offer", first.gtin, 11),)
        total = bill.total + first.price - 7 - 11
        ledger.post_receipt(dataclasses.replace(bill, lines=lines, total=total), less)
        for n in (2, 3):
            ledger.post_receipt(review(store, f"visit-{n}"))
        # Evidence that no page can draw.
        bundles = evidence("visit-1", events=7, exit="x") + evidence("visit-2", unidentified=["visit-3", HOSTILE])
        (tmp_path / "evidence.jsonl").write_text(bundles, encoding="utf-8")
        with serving(store, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served:
            page = Page(driver, served.origin)
            driver.execute_script("document.querySelector('#reviews button').focus()")
            ledger.post_receipt(review(store, "visit-4"))
            page.until(lambda: len(page.all("#reviews button")) == 4)
            assert driver.switch_to.active_element.get_attribute("data-visit") == "visit-1"
            page.press(Keys.ENTER)
            page.until(lambda: "visit-1" in page.text("#review-meta"))
            assert "cannot be shown" in page.text("#review-evidence")
            # The amount that accepting it charges, to the last unit.
            exact = f"{total // 100}.{total % 100:02d}"
            page.press("1")
            assert exact in page.text("#book")
            driver.execute_script("document.querySelector('#editing > summary').focus()")
            page.press(Keys.ENTER)
            assert exact in page.text("#review-lines tfoot") and "0.11" in page.text("#review-lines tfoot")
            # Two pieces more, with the focus kept; then two fewer, and the bill is as it was.
            driver.execute_script("document.querySelector('#review-lines .stepper').lastChild.focus()")
            page.press(Keys.ENTER)
            page.press(Keys.ENTER)
            more = total + 2 * first.price + 11
            page.until(lambda: f"{more // 100}.{more % 100:02d}" in page.text("#review-lines tfoot"))
            assert page.text("#review-lines .stepper b") == "5"
            driver.execute_script("document.querySelector('#review-lines .stepper').firstChild.focus()")
            page.press(Keys.ENTER)
            page.press(Keys.ENTER)
            assert exact in page.text("#review-lines tfoot") and not page.found("#book").is_enabled()
            # A key that stays down on the button is one decision.
            driver.execute_script("document.getElementById('review-name').focus()")
            page.press("1")
            held = "new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, cancelable: true, repeat: true})"
            driver.execute_script("document.getElementById('book').focus()")
            assert not driver.execute_script(f"return document.getElementById('book').dispatchEvent({held})")
            page.press(Keys.ENTER)
            page.until(lambda: "anna" in page.text("#review-message"))
            page.press(Keys.ESCAPE)
            page.until(lambda: driver.switch_to.active_element.get_attribute("data-visit") == "visit-2")
            assert [waiting.visit for waiting in ledger.reviews()] == ["visit-2", "visit-3", "visit-4"]
            assert ledger.standing("visit-1").total == total  # type: ignore[union-attr]
            # From a scan that was bound to no person to the visit of one who came in without a credential.
            page.press(Keys.ENTER)
            page.until(lambda: "without a credential" in page.text("#review-evidence"))
            assert "<script>" in page.text("#review-evidence .unidentified") and driver.title != "owned"
            page.found("#review-evidence .unidentified button").click()
            page.until(lambda: "visit-3" in page.text("#review-meta"))
            assert complaints(driver) == []
            driver.get("about:blank")
