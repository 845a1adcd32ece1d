"""Make the example stores of the package: each has its own way in, its way to pay and its prices.

python examples/make_stores.py [FOLDER]

The rooms and goods are invented; how customers come in, pay and get their receipts is like in the real stores.
`example.toml` in each store folder says who comes in the simulated minutes and with which credentials.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from fusion.example_stores.catalogue import FOLDER
from fusion.simulation import demo_store
from fusion.store.gtin import check_digit
from fusion.store.models import Facing, Gate, PaymentPolicy, Plate, PrivacyPolicy, Product, Store
from fusion.store.prices import Offer, Price, Prices


@dataclass(frozen=True)
class ExampleStore:
    """A store, and the text of its example.toml."""

    store: Store
    settings: str


def base(
    store_id: str, name: str, *, credentials: tuple[str, ...], vat_rate: float | None = None, size: dict[str, int],
    **fields: Any,
) -> Store:  # fmt: skip
    """A demonstration shop under another name.

    Args:
        store_id, name: of the store.
        credentials: accepted at the entry.
        vat_rate: of all products; None: as in the demonstration shop.
        size: arguments of `demo_store`.
        fields: other fields of the store.
    """
    shop = demo_store(**{"n_cameras": 8, "n_plates": 80, "n_products": 30, **size})
    entry, way_out = shop.gate
    products = shop.products
    if vat_rate is not None:
        products = tuple(product.model_copy(update={"vat_rate": vat_rate}) for product in products)
    gates = (entry.model_copy(update={"credentials": credentials}), way_out)
    return shop.model_copy(update={"id": store_id, "name": name, "gate": gates, "products": products, **fields})


def amazon_go() -> ExampleStore:
    shop = base(
        "amazon_go", "Go, 7th Avenue", credentials=("qr",), currency="USD", timezone="America/Los_Angeles",
        vat_rate=10.25, size={"seed": 1},
    )  # fmt: skip
    food = [product for product in shop.products if "sandwich" in product.name or "salad" in product.name]
    weekdays = ("mon", "tue", "wed", "thu", "fri")
    lunch = tuple(
        Price(gtin=product.gtin, price=product.price - 50, days=weekdays, between=("11:30", "14:00"))
        for product in food
    )
    shop = shop.model_copy(update={"prices": Prices(price=lunch)})
    return ExampleStore(shop, example("qr", start="2026-03-04T11:27", minutes=5.0, shoppers=8))


NEW_YORK: dict[str, Any] = {
    "credentials": ("card",),
    "payment": PaymentPolicy(mode="enter", authorise=5000),
    "currency": "USD",
    "timezone": "America/New_York",
    "vat_rate": 8.875,
}


def just_walk_out() -> ExampleStore:
    shop = base("just_walk_out", "Airport kiosk, gate B12", size={"seed": 2, "n_plates": 60}, **NEW_YORK)
    return ExampleStore(shop, example("card", start="2026-03-04T08:00", email=0.6, lost=0.1))


def just_walk_out_stadium() -> ExampleStore:
    size = {"seed": 3, "n_plates": 40, "n_products": 12}
    shop = base("just_walk_out_stadium", "Stadium stand, block 114", size=size, **NEW_YORK)
    settings = example(
        "card", start="2026-03-07T20:15", minutes=4.0, shoppers=12, picks_per_person=2.0, email=0.4
    )  # fmt: skip
    return ExampleStore(shop, settings)


def amazon_fresh() -> ExampleStore:
    shop = base(
        "amazon_fresh", "Fresh, Queen Street", credentials=("qr", "card", "staff"), currency="GBP",
        timezone="Europe/London", privacy=PrivacyPolicy(unlink_after_days=30),
        size={"seed": 4, "n_cameras": 20, "n_plates": 320, "n_products": 40},
    )  # fmt: skip
    drinks = tuple(product.gtin for product in shop.products if "water" in product.name or "Cola" in product.name)
    snacks = tuple(product.gtin for product in shop.products if "crisps" in product.name)
    prices = Prices(
        price=(Price(gtin=shop.products[0].gtin, price=85, members=True),),
        offer=(
            Offer(id="any 3 drinks", gtins=drinks, pieces=3, price=250),
            Offer(id="crisps week", gtins=snacks, percent=20.0, first_day="2026-03-02", last_day="2026-03-08"),
        ),
    )
    settings = example(
        "qr", start="2026-03-04T17:30", minutes=5.0, shoppers=8, companions=2, members=0.5, staff=1
    )  # fmt: skip
    return ExampleStore(shop.model_copy(update={"prices": prices}), settings)


def welife() -> ExampleStore:
    shop = base(
        "welife", "WeLife, Century Plaza", credentials=("qr",), currency="CNY", timezone="Asia/Shanghai",
        vat_rate=13.0, payment=PaymentPolicy(mode="zone"), size={"seed": 5},
    )  # fmt: skip
    sections = ("Bakery", "Tea house", "Stationery", "Pop-up: Snow Fox")
    quarter = -(-len(shop.products) // len(sections))
    branded = tuple(
        product.model_copy(update={"name": f"{sections[i // quarter]} · {product.name}"})
        for i, product in enumerate(shop.products)
    )
    popup = tuple(product.gtin for product in branded if product.name.startswith("Pop-up"))
    opening = Offer(
        id="Snow Fox opening", gtins=popup, percent=15.0, first_day="2026-03-01", last_day="2026-03-31"
    )  # fmt: skip
    shop = shop.model_copy(update={"products": branded, "prices": Prices(offer=(opening,))})
    return ExampleStore(shop, example("qr", start="2026-03-04T12:30", shoppers=6))


def biu() -> ExampleStore:
    shop = base(
        "biu", "Biu, Nanjing", credentials=("face",), currency="CNY", timezone="Asia/Shanghai", vat_rate=13.0,
        size={"seed": 6, "n_plates": 60},
    )  # fmt: skip
    return ExampleStore(shop, example("face", start="2026-03-04T15:00", shoppers=6))


def unmanned_box() -> ExampleStore:
    shop = base(
        "unmanned_box", "Box 17", credentials=("qr",), payment=PaymentPolicy(mode="door"),
        size={"seed": 7, "n_cameras": 6, "n_plates": 40, "n_products": 16},
    )  # fmt: skip
    settings = example(
        "qr", start="2026-03-04T23:10", minutes=4.0, shoppers=4, exit_read_probability=0.97
    )  # fmt: skip
    return ExampleStore(shop, settings)


def rewe_pilot() -> ExampleStore:
    shop = base("rewe_pilot", "Pilot market, Zoobruecke", credentials=("qr", "staff"), size={"seed": 8})
    members = tuple(
        Price(gtin=product.gtin, price=round(product.price * 0.95), members=True) for product in shop.products
    )
    shop = shop.model_copy(update={"prices": Prices(price=members)})
    settings = example("qr", start="2026-03-04T10:00", staff=1, staff_only_minutes=2.5, members=0.4)
    return ExampleStore(shop, settings)


# What lies in the cabinet, a product to a tray: name, grams of a piece and their standard deviation, price, VAT rate,
# pieces. No camera sees it, so what is put back on a wrong tray is known by its weight alone.
CABINET_GOODS = {
    "s1p1": ("Still water 0.5 l", 524, 1, 129, 19, 12),
    "s1p2": ("Cola 0.33 l can", 346, 2, 149, 19, 12),
    "s1p3": ("Cold coffee 0.25 l", 266, 2, 229, 7, 12),
    "s2p1": ("Sushi box", 432, 3, 799, 7, 8),
    "s2p2": ("Ham baguette", 234, 2.5, 449, 7, 8),
    "s2p3": ("Cheese sandwich", 178, 2, 349, 7, 10),
    "s3p1": ("Pasta salad", 296, 3, 499, 7, 8),
    "s3p2": ("Pretzel sticks 125 g", 139, 1.2, 159, 7, 12),
    "s3p3": ("Chocolate bar", 108, 0.8, 129, 7, 14),
    "s4p1": ("Protein bar", 72, 0.6, 249, 7, 14),
    "s4p2": ("Mints tin", 57, 0.5, 179, 7, 14),
    "s4p3": ("Chewing gum", 31, 0.4, 119, 7, 14),
}
CABINET_LEVELS_M = (0.35, 0.7, 1.02, 1.32)


def cabinet() -> ExampleStore:
    bodies = [f"29{i:010d}" for i in range(1, len(CABINET_GOODS) + 1)]
    codes = {tray: body + check_digit(body) for body, tray in zip(bodies, CABINET_GOODS)}
    products = tuple(
        Product(gtin=codes[tray], name=name, weight_g=weight_g, weight_sd_g=sd_g, price=price, vat_rate=vat_rate)
        for tray, (name, weight_g, sd_g, price, vat_rate, _) in CABINET_GOODS.items()
    )
    plates = tuple(
        Plate(
            plate=f"s{level}p{at + 1}", x=round(0.17 + 0.23 * at, 3), y=0.3, z=z_m, width=0.19, depth=0.4, yaw=0.0,
            capacity_g=10000.0,
        )
        for level, z_m in enumerate(CABINET_LEVELS_M, 1)
        for at in range(3)
    )
    door = Gate(
        id="door", direction="both", line=((0.05, 0.06), (0.75, 0.06)), credentials=("card", "staff"), kind="cabinet"
    )
    store = Store(
        format_version=1, id="cabinet", name="Cabinet, Hall B", currency="EUR", timezone="Europe/Berlin",
        floor=((0.0, 0.0), (0.8, 0.0), (0.8, 0.6), (0.0, 0.6)), keypoints="coco17", weight_rate_hz=10.0, gate=(door,),
        plates=plates, products=products,
        planogram=tuple(Facing(plate=tray, gtin=codes[tray], stock=n) for tray, (*_, n) in CABINET_GOODS.items()),
    )  # fmt: skip
    # The trays have rims, so that no piece rests on two.
    settings = example(
        "card", start="2026-03-04T11:40", email=0.5, minutes=7.0, shoppers=10, staff=1, picks_per_person=2.0,
        straddle_probability=0.0,
    )  # fmt: skip
    return ExampleStore(store, settings)


MAKERS = (
    amazon_go, just_walk_out, just_walk_out_stadium, amazon_fresh, welife, biu, unmanned_box, rewe_pilot, cabinet,
)  # fmt: skip


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
id = "cabinets"
name = "Cabinets GmbH"
brand = "Cabinet"
fee_share = 3.0
stores = ["cabinet"]

[[retailer]]
id = "rewe"
name = "REWE"
brand = "REWE Pick & Go"
stores = ["rewe_pilot"]
"""


def example(credential: str, **settings: Any) -> str:
    """example.toml: how customers come in, and who comes in the simulated minutes."""
    top_level = {
        name: settings.pop(name) for name in ("email", "members", "lost", "staff_only_minutes") if name in settings
    }
    start = settings.pop("start")
    document = tomlkit.item({"credential": credential, "start": start, **top_level})
    document["start"].comment("on the store's clock")
    scenario = {"minutes": 5.0, "shoppers": 8, **settings}
    return tomlkit.dumps(document) + "\n" + tomlkit.dumps({"scenario": scenario})


def main(home: Path) -> None:
    for make in MAKERS:
        made = make()
        made.store.save(home / made.store.id)
        (home / made.store.id / "example.toml").write_text(made.settings, encoding="utf-8")
    (home / "chain.toml").write_text(CHAIN, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
