"""The console's command, and the console in a real browser."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from browsing import browsing, complaints, in_browser, requested
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
    assert main([*common, books]) == 2 and "--add-user" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115 closed with the process
    assert main([*common, books, "--add-user", "anna"]) == 2 and "password" in capsys.readouterr().err
    Users(tmp_path / "users.json").add("anna", PASSWORD, store.id)
    assert main([*common, books, "--host", "0.0.0.0"]) == 2 and "--certificate" in capsys.readouterr().err
    assert main([*common, books, "--provider", "https://x"]) == 2
    assert "FUSION_PROVIDER_SECRET" in capsys.readouterr().err


@in_browser
@pytest.mark.parametrize("width", [1440, 390])
def test_a_person_decides_in_a_browser(
    tmp_path: Path, store: Store, users_file: Path, ended_run: EndedRun, width: int
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

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
        with (
            serving(hostile, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served,
            browsing(width) as driver,
        ):
            wait = WebDriverWait(driver, 60)

            def found(selector: str) -> Any:
                return driver.find_element(By.CSS_SELECTOR, selector)

            driver.get(served.origin)
            found("[name=name]").send_keys("anna")
            found("[name=password]").send_keys(PASSWORD)
            found("button.primary").click()
            wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, "#reviews button")) == 3)
            assert driver.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
            found("#reviews button").click()
            wait.until(lambda _: found("#review").is_displayed())
            first = waiting[0]
            assert first.visit in found("#review-meta").text and len(found("#review-why").text) > 10
            assert driver.find_elements(By.CSS_SELECTOR, "#review-evidence polyline.weight")
            assert driver.find_elements(By.CSS_SELECTOR, "#review-evidence polyline.wrist")
            # Where the plate came to rest, and where it was before, are both inside the picture of its weight.
            levels = driver.find_elements(By.CSS_SELECTOR, "#review-evidence .trace .level")
            assert levels and all(14 < float(line.get_attribute("y1")) < 60 for line in levels)
            driver.save_screenshot(str(tmp_path / f"review_{width}.png"))
            # By key, with the focus where it is; the next visit appears at once.
            driver.switch_to.active_element.send_keys("a")
            wait.until(lambda _: ledger.standing(first.visit).status == "decided")  # type: ignore[union-attr]
            wait.until(lambda _: waiting[1].visit in found("#review-meta").text)
            # One piece more, by hand.
            driver.find_elements(By.CSS_SELECTOR, "#review-lines .stepper button")[1].click()
            assert not found("#accept").is_enabled()
            found("#reason option[value=missed]").click()
            found("#correct").click()
            wait.until(lambda _: ledger.standing(waiting[1].visit).status == "decided")  # type: ignore[union-attr]
            wait.until(lambda _: waiting[2].visit in found("#review-meta").text)
            # Another console decides the third while it is on the screen.
            ledger.decide(waiting[2].visit, "waive", by="ben", t_ns=T_NS)
            wait.until(lambda _: "Another console has decided" in found("#review-message").text)
            assert not found("#accept").is_enabled()
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
            assert driver.title != "owned"
            assert not driver.find_elements(By.CSS_SELECTOR, "img, iframe")
            assert complaints(driver) == []
            assert all(url.startswith((served.origin, "data:")) for url in requested(driver))


@in_browser
def test_by_keyboard_alone(tmp_path: Path, store: Store, users_file: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

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
        with (
            serving(store, ledger, users_file, evidence=tmp_path / "evidence.jsonl") as served,
            browsing(1440) as driver,
        ):
            wait = WebDriverWait(driver, 60)

            def text(selector: str) -> str:
                return str(driver.find_element(By.CSS_SELECTOR, selector).text)

            def press(*keys: str) -> None:
                driver.switch_to.active_element.send_keys(*keys)

            driver.get(served.origin)
            press("anna", Keys.TAB)
            press(PASSWORD, Keys.ENTER)
            wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, "#reviews button")) == 3)
            driver.execute_script("document.querySelector('#reviews button').focus()")
            ledger.post_receipt(review(store, "visit-4"))
            wait.until(lambda _: len(driver.find_elements(By.CSS_SELECTOR, "#reviews button")) == 4)
            assert driver.switch_to.active_element.get_attribute("data-visit") == "visit-1"
            press(Keys.ENTER)
            wait.until(lambda _: "visit-1" in text("#review-meta"))
            assert "cannot be shown" in text("#review-evidence")
            # The amount that accepting it charges, to the last unit.
            exact = f"{total // 100}.{total % 100:02d}"
            assert exact in text("#review-lines tfoot") and "0.11" in text("#review-lines tfoot")
            # Two pieces more, with the focus kept; then two fewer.
            driver.execute_script("document.querySelector('#review-lines .stepper').lastChild.focus()")
            press(Keys.ENTER)
            press(Keys.ENTER)
            assert text("#review-lines .stepper b") == "5" and "About" in text("#review-lines tfoot")
            press(Keys.TAB)
            driver.execute_script("document.querySelector('#review-lines .stepper').firstChild.focus()")
            press(Keys.ENTER)
            press(Keys.ENTER)
            assert exact in text("#review-lines tfoot")
            # A key that stays down is one decision.
            held = "new KeyboardEvent('keydown', {key: 'a', bubbles: true, repeat: true})"
            driver.execute_script(f"document.getElementById('accept').dispatchEvent({held})")
            press("a")
            wait.until(lambda _: "visit-2" in text("#review-meta"))
            driver.execute_script(f"document.getElementById('accept').dispatchEvent({held})")
            time.sleep(0.3)
            press(Keys.ESCAPE)
            wait.until(lambda _: driver.switch_to.active_element.get_attribute("data-visit") == "visit-2")
            assert [waiting.visit for waiting in ledger.reviews()] == ["visit-2", "visit-3", "visit-4"]
            assert ledger.standing("visit-1").total == total  # type: ignore[union-attr]
            # From a scan that was bound to no person to the visit of one who came in without a credential.
            press(Keys.ENTER)
            wait.until(lambda _: "without a credential" in text("#review-evidence"))
            assert "<script>" in text("#review-evidence .unidentified") and driver.title != "owned"
            driver.save_screenshot(str(tmp_path / "unidentified.png"))
            driver.find_element(By.CSS_SELECTOR, "#review-evidence .unidentified button").click()
            wait.until(lambda _: "visit-3" in text("#review-meta"))
            assert complaints(driver) == []
