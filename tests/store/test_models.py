"""The store folder: what is right comes back equal, what is wrong says where and why."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.store.models import (
    Camera,
    Facing,
    Gate,
    Obstacle,
    Plate,
    Product,
    Store,
    Zone,
    check_digit,
    inside_polygon,
    signed_area_m2,
)

# Published examples: GS1's own, a book, and what stands on bottles and boxes.
KNOWN_GTINS = [
    "96385074",
    "012345678905",
    "4006381333931",
    "9780306406157",
    "00012345600012",
    "5449000000996",
    "73513537",
]


@pytest.mark.parametrize("gtin", KNOWN_GTINS)
def test_check_digit_of_known_gtins(gtin: str) -> None:
    assert check_digit(gtin[:-1]) == gtin[-1]
    assert product(gtin).gtin == gtin


def product(gtin: str, **values: object) -> Product:
    row = {"name": "Water", "weight_g": 500.0, "weight_sd_g": 2.0, "price": 99, "vat_rate": 19.0}
    return Product.model_validate({"gtin": gtin, **row, **values})


@given(st.sampled_from([7, 11, 12, 13]).flatmap(lambda n: st.text("0123456789", min_size=n, max_size=n)), st.data())
def test_check_digit_finds_every_wrong_digit(body: str, data: st.DataObject) -> None:
    gtin = body + check_digit(body)
    assert product(gtin).gtin == gtin
    place = data.draw(st.integers(0, len(gtin) - 1))
    other = data.draw(st.sampled_from("0123456789".replace(gtin[place], "")))
    wrong = gtin[:place] + other + gtin[place + 1 :]
    with pytest.raises(ValueError, match="want check digit"):
        product(wrong)


@given(st.text("0123456789", min_size=7, max_size=13))
def test_leading_zeros_do_not_change_the_check_digit(body: str) -> None:
    assert check_digit(body) == check_digit("0" + body) == check_digit(body.zfill(13))


def store(**values: object) -> Store:
    base: dict[str, object] = {
        "format_version": 1,
        "id": "shop",
        "name": "Shop",
        "currency": "EUR",
        "timezone": "Europe/Berlin",
        "floor": ((0.0, 0.0), (8.0, 0.0), (8.0, 6.0), (0.0, 6.0)),
        "keypoints": "coco17",
    }
    return Store.model_validate(base | values)


@pytest.mark.parametrize(
    ("currency", "minor", "text"),
    [
        ("EUR", 249, "2.49 EUR"),
        ("EUR", 5, "0.05 EUR"),
        ("EUR", -5, "-0.05 EUR"),
        ("EUR", 0, "0.00 EUR"),
        ("EUR", -12345, "-123.45 EUR"),
        ("JPY", 249, "249 JPY"),
        ("JPY", -1, "-1 JPY"),
        ("KWD", 1234, "1.234 KWD"),
        ("KWD", -7, "-0.007 KWD"),
    ],
)
def test_price_text(currency: str, minor: int, text: str) -> None:
    assert store(currency=currency).price_text(minor) == text


@given(st.sampled_from(["EUR", "JPY", "KWD", "USD"]), st.integers(-(10**15), 10**15))
def test_price_text_returns_to_the_same_minor_units(currency: str, minor: int) -> None:
    shop = store(currency=currency)
    figure, code = shop.price_text(minor).split()
    assert code == currency
    assert int(figure.replace(".", "")) == minor
    assert len(figure.partition(".")[2]) == shop.currency_exponent


# ---- polygons --------------------------------------------------------------------------------------------------------


@given(st.integers(3, 12), st.floats(0.5, 50.0), st.floats(-20, 20), st.floats(-20, 20))
def test_polygons_around_a_circle(n: int, radius: float, x: float, y: float) -> None:
    corners = [
        (x + radius * math.cos(2 * math.pi * i / n), y + radius * math.sin(2 * math.pi * i / n)) for i in range(n)
    ]
    assert signed_area_m2(corners) == pytest.approx(0.5 * n * radius**2 * math.sin(2 * math.pi / n))
    assert signed_area_m2(corners[::-1]) == pytest.approx(-signed_area_m2(corners))
    assert inside_polygon(corners, x, y)
    assert not inside_polygon(corners, x + 1.01 * radius, y)
    assert inside_polygon(corners, x + radius + 0.04, y, margin_m=0.05)


# ---- saving and loading ----------------------------------------------------------------------------------------------

# Whatever an owner may type: quotes, commas, umlauts, line breaks, things that look like numbers or TOML.
_NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
    st.sampled_from(['a"b', "a,b", "é", "a\\b", "a\nb", "1e5", "#x", " x ", "\x7f", "[t]", "a\tb", "\u2028", "\x1c"]),
)
_METRES = st.floats(-50, 50).map(lambda v: v + 0.0)
_GTINS = st.text("0123456789", min_size=12, max_size=12).map(lambda body: body + check_digit(body))


@st.composite
def stores(draw: st.DrawFn) -> Store:
    cameras = [
        Camera(
            name=name,
            size=(1920, 1080),
            matrix=((draw(st.floats(300, 3000)), 0.0, 960.5), (0.0, 1100.0, 540.0), (0.0, 0.0, 1.0)),
            distortions=tuple(draw(st.floats(-1, 1)) for _ in range(5)),
            rotation=tuple(draw(st.floats(-3, 3)) for _ in range(3)),
            translation=tuple(draw(_METRES) for _ in range(3)),
        )
        for name in draw(st.lists(_NAMES, max_size=3, unique=True))
    ]
    plates = [
        Plate(
            plate=name,
            x=draw(st.floats(0, 8)),
            y=draw(st.floats(0, 6)),
            z=draw(st.floats(0, 2)),
            width=draw(st.floats(0.01, 2)),
            depth=0.4,
            yaw=draw(st.floats(-6, 6)),
            capacity_g=20_000.0,
        )
        for name in draw(st.lists(_NAMES, max_size=3, unique=True))
    ]
    products = [
        Product(
            gtin=gtin, name=draw(_NAMES), weight_g=draw(st.floats(1, 5000)), weight_sd_g=1.5, price=249, vat_rate=7.0
        )
        for gtin in draw(st.lists(_GTINS, max_size=3, unique=True))
    ]
    facings = [Facing(plate=p.plate, gtin=g.gtin, stock=draw(st.integers(0, 99))) for p in plates for g in products]
    gates = [
        Gate(id=name, direction="both", line=((0.2, 0.0), (1.2, 0.0)), credentials=("qr", "open"))
        for name in draw(st.lists(_NAMES, max_size=2, unique=True))
    ]
    zones = [
        Zone(id=name, kind="queue", polygon=((0, 0), (1, 0), (1, 1))) for name in draw(st.lists(_NAMES, max_size=1))
    ]
    return store(
        name=draw(_NAMES),
        keypoints=draw(st.sampled_from(["coco17", "body25", "box2"])),
        appearance_dim=draw(st.sampled_from([0, 128])),
        weight_rate_hz=draw(st.sampled_from([60.0, 12.5])),
        gate=gates,
        zone=zones,
        obstacle=Obstacle(boxes=((1.0, 2.0, 4.0, 2.6, 1.8),)) if draw(st.booleans()) else Obstacle(),
        cameras=tuple(sorted(cameras, key=lambda camera: camera.name)),
        plates=plates,
        products=products,
        planogram=facings,
    )


@settings(max_examples=80, deadline=None)
@given(stores())
def test_a_saved_store_loads_equal(tmp_path_factory: pytest.TempPathFactory, shop: Store) -> None:
    folder = tmp_path_factory.getbasetemp() / "saved"
    shop.save(folder)
    assert Store.load(folder) == shop
    first = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    Store.load(folder).save(folder)
    assert {path.name: path.read_bytes() for path in sorted(folder.iterdir())} == first


def test_public_stores_load_and_return() -> None:
    public = Path(__file__).resolve().parents[3] / "shared" / "data"
    folders = sorted(public.glob("*/store")) + sorted(public.glob("dev/*/store"))
    if not folders:
        pytest.skip("no public recordings beside the repository")
    for folder in folders:
        assert Store.load(folder).layout.n_joints in (2, 17, 25)
