"""Shopper's pages and screens in a real browser: on a phone and a desk, light and dark, by keyboard, offline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from browsing import LOOKS, browsing, complaints, findings, in_browser, requested, set_look
from show.phones import HOSTILE, ServedPages, bill, serving_pages

from fusion.store.models import Store, Zone

pytestmark = in_browser
ZONE = Zone(id="pay", kind="payment", polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))


class Covered:
    """Authorises whatever is asked for."""

    def ask(self, visit: str, amount: int, t_ns: int) -> str:
        return "covered"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[ServedPages]:
    """A store with hostile names, and a payment zone."""
    products = (store.products[0].model_copy(update={"name": HOSTILE}), *store.products[1:])
    hostile = store.model_copy(update={"name": HOSTILE, "products": products, "zone": (ZONE,)})
    with serving_pages(tmp_path_factory.mktemp("pages"), hostile, authorisations=Covered()) as served:
        yield served


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browsing(1440) as driver:
        yield driver


@pytest.fixture(autouse=True)
def signed_out(driver: Any, served: ServedPages) -> None:
    driver.get(f"{served.origin}/assets/icon.svg")
    driver.delete_all_cookies()
    driver.execute_script("localStorage.clear()")
    set_look(driver, 390, False)
    requested(driver), complaints(driver)


def until(driver: Any, condition: str) -> None:
    """Wait until a condition of the page holds."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60).until(lambda driver: driver.execute_script(f"return {condition}"), condition)


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def focused(driver: Any) -> str:
    found = "const at = document.activeElement; return at === document.body ? '' : at.textContent || at.id"
    return str(driver.execute_script(found))


def tab_to(driver: Any, text: str) -> None:
    """Reach what has a text by the tabulator alone."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(40):
        if text in focused(driver):
            return
        press(driver, Keys.TAB)
    raise AssertionError(f"{text!r} is not reached by the keyboard")


def look_everywhere(driver: Any, served: ServedPages, name: str) -> None:
    """No finding of axe, no overflow, in any look; no complaint, and no request to elsewhere."""
    for width, dark in LOOKS:
        set_look(driver, width, dark)
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), (name, width)
        assert findings(driver) == [], (name, width, dark)
    assert complaints(driver) == [], name
    outside = {url for url in requested(driver) if not url.startswith((served.origin, "data:", "chrome"))}
    assert not outside, name
    assert driver.title != "owned"


def enter(driver: Any, served: ServedPages, token: str, ready: str) -> None:
    """Open a link, and press its button."""
    driver.get(f"{served.origin}/in#{token}")
    until(driver, "document.documentElement.dataset.ready === 'arriving'")
    driver.execute_script("document.querySelector('main button').click()")
    until(driver, f"document.documentElement.dataset.ready === '{ready}'")


def go(driver: Any, place: str) -> None:
    driver.execute_script(f"document.documentElement.dataset.ready = ''; location.hash = '{place}'")
    until(driver, f"document.documentElement.dataset.ready === '{place.partition('=')[0]}'")


def test_every_page_on_a_phone_and_a_desk_light_and_dark(driver: Any, served: ServedPages) -> None:
    driver.get(f"{served.origin}/")
    until(driver, "document.documentElement.dataset.ready === 'signed-out'")
    look_everywhere(driver, served, "signed out")
    driver.get(f"{served.origin}/in#{served.token('account', 'ann')}")
    until(driver, "document.documentElement.dataset.ready === 'arriving'")
    look_everywhere(driver, served, "arriving")
    driver.execute_script("document.querySelector('main button').click()")
    until(driver, "document.querySelector('.code-picture:not([hidden])')")
    look_everywhere(driver, served, "code")
    first = served.store.products[0]
    served.runner.carts(("ann-3", [(first.gtin, 2)]))
    until(driver, "location.hash === '#basket' && document.querySelectorAll('.lines > li').length === 1")
    look_everywhere(driver, served, "basket")
    # The receipt replaces the basket by itself, although the cart ends after it.
    served.ledger.post_receipt(bill(served.store, "ann-3"))
    served.runner.carts()
    until(driver, "location.hash === '#receipt=ann-3' && document.querySelector('.state')")
    for place in ("receipts", "receipt=ann-1", "receipt=ann-2", "me"):
        go(driver, place)
        driver.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
        look_everywhere(driver, served, place)


def test_a_phone_shows_the_receipt_and_takes_a_complaint_by_keyboard_alone(driver: Any, served: ServedPages) -> None:
    from selenium.webdriver.common.keys import Keys

    enter(driver, served, served.token("visit", "guest-1"), "receipt")
    assert "receipt" in driver.current_url and "#L1" not in driver.current_url
    # No code, and no other receipts.
    assert len(driver.execute_script("return [...document.querySelectorAll('nav a')]")) == 2
    assert "10:04" in driver.execute_script("return document.querySelector('.taken').textContent")
    tab_to(driver, "This is wrong")
    press(driver, Keys.ENTER)
    press(driver, Keys.TAB, Keys.ARROW_DOWN)
    tab_to(driver, "Send")
    press(driver, Keys.ENTER)
    until(driver, "document.getElementById('message').textContent.startsWith('Thank you')")
    (disputed,) = [entry for entry in served.ledger.entries("guest-1") if entry.kind == "shopper disputed"]
    assert disputed.request["reason"] == "put back" and disputed.request["quantity"] == 1
    # The page is there in German, and says so to a screen reader.
    until(driver, "document.activeElement.tagName === 'H1'")
    tab_to(driver, "Deutsch")
    press(driver, Keys.ENTER)
    until(driver, "document.documentElement.lang === 'de' && document.body.textContent.includes('Bezahlt')")
    assert complaints(driver) == []


def test_the_cheaper_answer_is_chosen_until_the_shopper_chooses(driver: Any, served: ServedPages) -> None:
    enter(driver, served, served.token("visit", "ann-2"), "receipt")
    checked = "[...document.querySelectorAll('.asks .choice input')].map((choice) => choice.checked)"
    assert driver.execute_script(f"return {checked}") == [True, False, False, False]
    driver.execute_script("document.querySelector('.asks button').click()")
    until(driver, "!document.querySelector('.asks') && document.getElementById('message').textContent")
    assert any(entry.kind == "shopper answered" for entry in served.ledger.entries("ann-2"))


def test_offline_the_last_code_is_shown_until_it_expires(driver: Any, served: ServedPages) -> None:
    from selenium.webdriver.common.keys import Keys

    enter(driver, served, served.token("account", "ann"), "code")
    until(driver, "document.querySelector('.code-picture:not([hidden])')")
    until(driver, "navigator.serviceWorker.ready.then(() => true)")
    picture = driver.execute_script("return document.querySelector('.code-picture').src")
    driver.execute_cdp_cmd("Network.enable", {})
    gone = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    try:
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", gone)
        driver.refresh()
        until(driver, "document.documentElement.dataset.ready === 'code'")
        until(driver, "document.querySelector('.code-picture:not([hidden])')")
        assert driver.execute_script("return document.querySelector('.code-picture').src") == picture
        assert "last code" in driver.find_element("css selector", "main").text
        # A minute later it is gone: the phone's clock decides.
        driver.execute_script("const now = Date.now; Date.now = () => now() + 61000;")
        until(driver, "document.querySelector('.code-picture[hidden]')")
        assert "expired" in driver.find_element("css selector", "main").text
    finally:
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**gone, "offline": False})
    driver.execute_script("document.documentElement.dataset.ready = ''")
    driver.refresh()
    until(driver, "document.querySelector('.code-picture:not([hidden])')")
    # Who signs out leaves no code behind.
    go(driver, "me")
    tab_to(driver, "On this device")
    press(driver, Keys.ENTER)
    until(driver, "!document.querySelector('nav:not([hidden])')")
    assert driver.execute_script("return localStorage.getItem('code')") is None
    complaints(driver)


def paired(driver: Any, served: ServedPages, screen: str) -> None:
    driver.get(f"{served.origin}/screen")
    until(driver, "document.querySelector('main input')")
    code = served.parts.sessions.pair(screen, time.time())
    driver.find_element("css selector", "input").send_keys(f"{code[:4].lower()} {code[4:]}\n")
    until(driver, f"location.pathname === '/screen/{screen}'")


def test_the_screen_at_a_door_shows_what_the_gate_decides(driver: Any, served: ServedPages) -> None:
    gate = served.store.gate[0].id
    driver.get(f"{served.origin}/screen")
    until(driver, "document.querySelector('main input')")
    look_everywhere(driver, served, "pairing")
    paired(driver, served, f"gate/{gate}")
    for kind, display, shown in (
        ("open", HOSTILE, HOSTILE), ("moment", "One moment please", "One moment please"),
        ("shut", "Please ask the staff", "Please ask the staff"),
    ):  # fmt: skip
        served.runner.send("gate", [1, gate, "in", kind, display, "reason"])
        until(driver, f"document.documentElement.dataset.shows === '{kind}'")
        assert shown in driver.execute_script("return document.querySelector('main').textContent")
    look_everywhere(driver, served, "shut")
    served.runner.send("left", [1, gate, "guest-1"])
    until(driver, "document.documentElement.dataset.shows === 'door'")
    look_everywhere(driver, served, "door")


def test_a_basket_is_confirmed_on_the_screen_of_a_zone(driver: Any, served: ServedPages) -> None:
    paired(driver, served, "zone/pay")
    first = served.store.products[0]
    rows = [["ann-3", first.price, [[first.gtin, 1, first.price]]], ["bob-1", 0, []]]
    served.runner.send("baskets", [1, "zone/pay", rows])
    until(driver, "document.querySelectorAll('.basket').length === 2")
    look_everywhere(driver, served, "zone")
    driver.execute_script("document.querySelector('.basket button').click()")
    until(driver, "document.querySelector('.basket').textContent.includes('Paid')")
    served.runner.send("baskets", [2, "zone/pay", []])
    until(driver, "document.documentElement.dataset.shows === 'idle'")
