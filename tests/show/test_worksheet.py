"""The worksheet in a real browser: entered on a phone, saved, and imported as it was entered."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from browsing import browsing, complaints, findings, in_browser, requested, set_look
from store.shops import bare_shop

from fusion.commands.main import main
from fusion.errors import ConfigError
from fusion.show.worksheet import GOODS_MAX, worksheet
from fusion.store.models import Facing, Plate, Product, Store

TEA = Product(gtin="96385074", name='Tea </script> "x"', weight_g=50, weight_sd_g=1, price=199, vat_rate=7)
SOAP = Product(gtin="4006381333931", name="Soap", weight_g=90, weight_sd_g=1, price=99, vat_rate=19)


def shop() -> Store:
    plates = [
        Plate(plate=name, x=x, y=2.0, z=0.9, width=0.3, depth=0.4, yaw=0.0, capacity_g=20_000)
        for name, x in (("a1", 1.0), ("a2", 1.5))
    ]
    return bare_shop(plates=plates, products=[TEA, SOAP], planogram=[Facing(plate="a1", gtin=TEA.gtin, stock=4)])


def field(driver: Any, plate: int, label: str) -> Any:
    card = driver.find_elements("tag name", "details")[plate]
    return next(each for each in card.find_elements("tag name", "label") if each.text == label).find_element(
        "tag name", "input"
    )


def press(driver: Any, text: str) -> None:
    button = next(b for b in driver.find_elements("tag name", "button") if b.text == text and b.is_displayed())
    # As a person does: out from under the bar at the bottom.
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def enter(driver: Any, plate: int, label: str, text: str) -> None:
    box = field(driver, plate, label)
    box.clear()
    box.send_keys(text)


def downloaded(folder: Path, name: str) -> Path:
    for _ in range(100):
        if (folder / name).exists():
            return folder / name
        time.sleep(0.05)
    pytest.fail(f"{name} was not saved; there is {[path.name for path in folder.iterdir()]}")


@in_browser
def test_what_is_entered_on_a_phone_is_imported_as_it_was_entered(tmp_path: Path) -> None:
    folder, saved = tmp_path / "shop", tmp_path / "saved"
    shop().save(folder)
    saved.mkdir()
    assert main(["worksheet", str(folder), "--out", str(tmp_path / "sheet.html")]) == 0
    with browsing(390) as driver:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)})
        driver.get((tmp_path / "sheet.html").as_uri())
        driver.find_elements("tag name", "summary")[0].click()
        enter(driver, 0, "x", "123,4")
        enter(driver, 0, "Weighed: pieces", "4")
        enter(driver, 0, "Weigh together (g)", "216")
        assert "54 g a piece; the catalogue has 50 g" in driver.page_source
        press(driver, "Done")
        enter(driver, 1, "Goods or GTIN", "04006381333931")
        enter(driver, 1, "turn", "east")
        enter(driver, 1, "Pieces on it", "7")
        press(driver, "Done")
        assert "a2: an entry is missing or wrong" in driver.find_element("id", "faults").text
        enter(driver, 1, "turn", "-90")
        driver.refresh()  # what was entered is still there
        assert driver.find_element("id", "count").text == "1 of 2 done"
        driver.find_elements("tag name", "summary")[1].click()
        press(driver, "Done")
        press(driver, "Add a plate")
        enter(driver, 2, "Name", "a3, new")
        for name in ("Save plates and goods", "Save weights"):
            press(driver, name)
            assert driver.find_element("id", "faults").text == ""
        found = [complaints(driver), {url for url in requested(driver) if not url.startswith(("file:", "blob:"))}]
        plates, weights = downloaded(saved, "shop-plates.csv"), downloaded(saved, "shop-products.csv")
    assert found == [[], set()]
    assert main(["import", str(plates), str(folder), "--replace"]) == 0
    assert main(["import", str(weights), str(folder), "--replace"]) == 0
    store = Store.load(folder)
    assert [(p.plate, p.x, p.y, p.z, p.capacity_g) for p in store.plates] == [
        ("a1", 1.234, 2.0, 0.9, 20_000), ("a2", 1.5, 2.0, 0.9, 20_000), ("a3, new", 1.5, 2.0, 0.9, 20_000)
    ]  # fmt: skip
    assert [p.yaw for p in store.plates] == pytest.approx([0.0, -1.5707963, -1.5707963])
    assert [(f.plate, f.gtin, f.stock) for f in store.planogram] == [("a1", TEA.gtin, 4), ("a2", SOAP.gtin, 7)]
    assert store.products == (TEA.model_copy(update={"weight_g": 54.0}), SOAP)


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1440, False)])
def test_the_page_is_accessible_and_fits_the_screen(tmp_path: Path, width: int, dark: bool) -> None:
    (tmp_path / "sheet.html").write_text(worksheet(shop()), encoding="utf-8")
    with browsing(width) as driver:
        driver.get((tmp_path / "sheet.html").as_uri())
        set_look(driver, width, dark)
        driver.find_elements("tag name", "summary")[0].click()
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert findings(driver) == [] and complaints(driver) == []


def test_no_name_ends_the_pages_script() -> None:
    page = worksheet(shop())
    assert page.count("</script>") == 2 and "Tea \\u003c/script" in page
    with pytest.raises(ConfigError, match=f"want at most {GOODS_MAX} products on a worksheet"):
        worksheet(shop().model_copy(update={"products": (TEA,) * (GOODS_MAX + 1)}))
