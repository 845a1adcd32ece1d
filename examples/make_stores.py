"""Make the example stores of the package: each has its own way in, its way to pay and its prices.

python examples/make_stores.py [FOLDER]

The rooms and goods are invented; how customers come in, pay and get their receipts is like in the real stores.
`example.toml` in each store folder says who comes in the simulated minutes and with which credentials.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fusion.example_stores.catalogue import FOLDER
from fusion.simulation import demo_store
from fusion.store.models import PaymentPolicy, PrivacyPolicy, Store
from fusion.store.prices import Offer, Price, Prices


def store(
    folder: str,
    name: str,
    *,
    credentials: tuple[str, ...],
    currency: str = "EUR",
    timezone: str = "Europe/Berlin",
    payment: PaymentPolicy | None = None,
    vat_rate: float | None = None,
    seed: int = 0,
    n_cameras: int = 8,
    n_plates: int = 80,
    n_products: int = 30,
    **more: Any,
) -> Store:
    base = demo_store(n_cameras=n_cameras, n_plates=n_plates, n_products=n_products, seed=seed)
    entry, way_out = base.gate
    gates = (entry.model_copy(update={"credentials": credentials}), way_out)
    products = base.products
    if vat_rate is not None:
        products = tuple(product.model_copy(update={"vat_rate": vat_rate}) for product in products)
    return base.model_copy(
        update={
            "id": folder,
            "name": name,
            "currency": currency,
            "timezone": timezone,
            "gate": gates,
            "products": products,
            "payment": payment or PaymentPolicy(),
            **more,
        }
    )


def stores() -> dict[str, tuple[Store, str]]:
    """Store and example.toml, by folder."""
    go = store("amazon_go", "Go, 7th Avenue", credentials=("qr",), currency="USD", timezone="America/Los_Angeles",
               vat_rate=10.25, seed=1)  # fmt: skip
    food = [product for product in go.products if "sandwich" in product.name or "salad" in product.name]
    lunch = tuple(
        Price(gtin=one.gtin, price=one.price - 50, days=("mon", "tue", "wed", "thu", "fri"), between=("11:30", "14:00"))
        for one in food
    )
    go = go.model_copy(update={"prices": Prices(price=lunch)})

    new_york = {"currency": "USD", "timezone": "America/New_York", "vat_rate": 8.875}
    partner = {"credentials": ("card",), "payment": PaymentPolicy(mode="enter", authorise=5000), **new_york}
    kiosk = store("just_walk_out", "Airport kiosk, gate B12", seed=2, n_plates=60, **partner)
    stand = store(
        "just_walk_out_stadium", "Stadium stand, block 114", seed=3, n_plates=40, n_products=12, **partner
    )

    fresh = store("amazon_fresh", "Fresh, Queen Street", credentials=("qr", "card", "staff"), currency="GBP",
                  timezone="Europe/London", seed=4, n_cameras=20, n_plates=320, n_products=40,
                  privacy=PrivacyPolicy(unlink_after_days=30))  # fmt: skip
    drinks = tuple(product.gtin for product in fresh.products if "water" in product.name or "Cola" in product.name)
    snacks = tuple(product.gtin for product in fresh.products if "crisps" in product.name)
    fresh = fresh.model_copy(
        update={
            "prices": Prices(
                price=(Price(gtin=fresh.products[0].gtin, price=85, members=True),),
                offer=(
                    Offer(id="any 3 drinks", gtins=drinks, pieces=3, price=250),
                    Offer(id="crisps week", gtins=snacks, percent=20.0, first_day="2026-03-02", last_day="2026-03-08"),
                ),
            )
        }
    )

    welife = store("welife", "WeLife, Century Plaza", credentials=("qr",), currency="CNY", timezone="Asia/Shanghai",
                   vat_rate=13.0, payment=PaymentPolicy(mode="zone"), seed=5)  # fmt: skip
    sections = ("Bakery", "Tea house", "Stationery", "Pop-up: Snow Fox")
    quarter = -(-len(welife.products) // len(sections))
    branded = tuple(
        product.model_copy(update={"name": f"{sections[i // quarter]} · {product.name}"})
        for i, product in enumerate(welife.products)
    )
    popup = tuple(product.gtin for product in branded if product.name.startswith("Pop-up"))
    welife = welife.model_copy(
        update={
            "products": branded,
            "prices": Prices(
                offer=(Offer(id="Snow Fox opening", gtins=popup, percent=15.0, first_day="2026-03-01",
                             last_day="2026-03-31"),)
            ),
        }
    )  # fmt: skip

    biu = store("biu", "Biu, Nanjing", credentials=("face",), currency="CNY", timezone="Asia/Shanghai", vat_rate=13.0,
                seed=6, n_plates=60)  # fmt: skip

    box = store("unmanned_box", "Box 17", credentials=("qr",), payment=PaymentPolicy(mode="door"), seed=7, n_cameras=6,
                n_plates=40, n_products=16)  # fmt: skip

    pilot = store("rewe_pilot", "Pilot market, Zoobruecke", credentials=("qr", "staff"), seed=8)
    members = tuple(Price(gtin=one.gtin, price=round(one.price * 0.95), members=True) for one in pilot.products)
    pilot = pilot.model_copy(update={"prices": Prices(price=members)})

    return {
        "amazon_go": (go, example("qr", start="2026-03-04T11:27", minutes=5.0, shoppers=8)),
        "just_walk_out": (kiosk, example("card", start="2026-03-04T08:00", email=0.6, lost=0.1)),
        "just_walk_out_stadium": (
            stand,
            example("card", start="2026-03-07T20:15", minutes=4.0, shoppers=12, picks_per_person=2.0, email=0.4),
        ),
        "amazon_fresh": (
            fresh,
            example("qr", start="2026-03-04T17:30", minutes=5.0, shoppers=8, companions=2, members=0.5, staff=1),
        ),
        "welife": (welife, example("qr", start="2026-03-04T12:30", shoppers=6)),
        "biu": (biu, example("face", start="2026-03-04T15:00", shoppers=6)),
        "unmanned_box": (
            box,
            example("qr", start="2026-03-04T23:10", minutes=4.0, shoppers=4, exit_read_probability=0.97),
        ),
        "rewe_pilot": (
            pilot,
            example("qr", start="2026-03-04T10:00", staff=1, staff_only_minutes=2.5, members=0.4),
        ),
    }


CHAIN = """\
# Who sells in the example stores, and which fees the platform gets. `fusion statement` reads it.
format_version = 1

[[retailer]]
id = "amazon"
name = "Amazon Retail"
brand = "Amazon"
stores = ["amazon_go", "amazon_fresh"]

[[retailer]]
id = "terminal-news"
name = "Terminal News Inc."
brand = "Terminal News"
fee_share = 4.5
stores = ["just_walk_out"]

[[retailer]]
id = "arena-foods"
name = "Arena Foods LLC"
brand = "Arena Foods"
fee_share = 6.0
stores = ["just_walk_out_stadium"]

[[retailer]]
id = "welife"
name = "WeLife"
brand = "WeLife"
stores = ["welife"]

[[retailer]]
id = "suning"
name = "Suning"
brand = "Biu"
stores = ["biu"]

[[retailer]]
id = "box"
name = "Box Ltd"
brand = "Box 17"
fee_monthly = 9900
stores = ["unmanned_box"]

[[retailer]]
id = "rewe"
name = "REWE"
brand = "REWE Pick & Go"
stores = ["rewe_pilot"]
"""


def example(credential: str, **settings: Any) -> str:
    """example.toml: how customers come in, and who comes in the simulated minutes."""
    own = {name: settings.pop(name) for name in ("email", "members", "lost", "staff_only_minutes") if name in settings}
    start = settings.pop("start")
    lines = [f'credential = "{credential}"', f'start = "{start}" # on the store\'s clock']
    lines += [f"{name} = {value!r}" for name, value in own.items()]
    scenario = {"minutes": 5.0, "shoppers": 8, **settings}
    return "\n".join([*lines, "", "[scenario]", *(f"{name} = {value!r}" for name, value in scenario.items())]) + "\n"


def main(home: Path) -> None:
    for name, (made, settings) in stores().items():
        made.save(home / name)
        (home / name / "example.toml").write_text(settings, encoding="utf-8")
    (home / "chain.toml").write_text(CHAIN, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
