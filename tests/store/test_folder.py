"""Store folders: what is saved loads equal, whatever an owner typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.shops import bare_shop

from fusion.errors import ConfigError
from fusion.store.gtin import check_digit
from fusion.store.models import Camera, Facing, Gate, Obstacle, Plate, Product, Store, Zone
from fusion.store.prices import Offer, Price, Prices, Restriction
from fusion.store.values import unprintable


def _is_printable(text: str) -> bool:
    return not unprintable(text)


# Names that an owner may type: quotes, commas, umlauts, other scripts, things that look like numbers or TOML.
_NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9).filter(_is_printable),
    st.sampled_from(['a"b', "a,b", "é", "a\\b", "1e5", "#x", " x ", "[t]", "\u00a0", "\u05d0\u05d1", "\U0001f9c0"]),
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
    return bare_shop(
        name=draw(_NAMES),
        keypoints=draw(st.sampled_from(["coco17", "body25", "box2"])),
        appearance_dim=draw(st.sampled_from([0, 128])),
        weight_rate_hz=draw(st.sampled_from([60.0, 12.5])),
        weight_unit=draw(st.sampled_from(["g", "kg", "lb", "oz"])),
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


def test_every_file_that_is_wrong_is_reported_at_once(tmp_path: Path) -> None:
    bare_shop().save(tmp_path)
    (tmp_path / "plates.csv").unlink()
    (tmp_path / "cameras.toml").write_bytes(b"\xff")
    (tmp_path / "prices.toml").write_text("[[price]]\ngtin = '96385074'\nprice = 1\n")
    with pytest.raises(ConfigError) as caught:
        Store.load(tmp_path)
    folder = tmp_path.name
    assert caught.value.faults == (
        f"{folder}/cameras.toml:1: want UTF-8, got byte 0xff at offset 0, 'ÿ' in Windows-1252",
        f"{folder}/plates.csv: the file does not exist",
        f"{folder}/prices.toml: price[0]: want a gtin listed in products.csv, got '96385074'",
    )


def test_prices_that_are_gone_leave_no_file_behind(tmp_path: Path) -> None:
    product = Product(gtin="96385074", name="Tea", weight_g=50, weight_sd_g=1, price=199, vat_rate=7)
    shop = bare_shop(products=[product])
    cheaper = shop.model_copy(update={"prices": Prices(price=(Price(gtin=product.gtin, price=99, days=("mon",)),))})
    cheaper.save(tmp_path)
    assert Store.load(tmp_path) == cheaper
    shop.save(tmp_path)
    assert Store.load(tmp_path) == shop and not (tmp_path / "prices.toml").exists()


_TEA = "gtin,name,weight_g,weight_sd_g,price,vat_rate\n96385074,Tea,50,1,199,7\n4006381333931,Soap,90,1,99,19\n"


@pytest.mark.parametrize(
    "products",
    [
        _TEA.replace(",", ";").encode(),
        _TEA.replace("Tea", "Thé").encode("cp1252"),
        _TEA.encode("utf-16"),
        _TEA.replace("name", "label").encode(),
        _TEA.replace("96385074", "9.6E+07").replace("4006381333931", "4.01E+12").encode(),
        _TEA.replace("96385074", "96385075").encode(),
        _TEA.replace("Tea", '"Tea').encode(),
    ],
)
def test_a_fault_of_one_file_makes_none_in_the_files_that_refer_to_it(tmp_path: Path, products: bytes) -> None:
    bare_shop().save(tmp_path)
    (tmp_path / "products.csv").write_bytes(products)
    (tmp_path / "planogram.csv").write_text("plate,gtin,stock\np1,96385074,3\np1,4006381333931,3\n")
    (tmp_path / "prices.toml").write_text("[[price]]\ngtin = '96385074'\nprice = 1\n")
    (tmp_path / "plates.csv").write_text("plate,x,y,z,width,depth,yaw,capacity_g\np1,1,1,1,0.3,0.4,90,20000\n")
    with pytest.raises(ConfigError) as caught:
        Store.load(tmp_path)
    files = [fault.partition("/")[2].partition(":")[0] for fault in caught.value.faults]
    assert files == ["plates.csv", "products.csv"]


def test_every_file_may_spell_a_gtin_in_its_own_way_and_the_store_has_that_of_its_products(tmp_path: Path) -> None:
    bare_shop().save(tmp_path)
    (tmp_path / "products.csv").write_text(_TEA)
    (tmp_path / "plates.csv").write_text("plate,x,y,z,width,depth,yaw,capacity_g\np1,1,1,1,0.3,0.4,0,20000\n")
    (tmp_path / "planogram.csv").write_text("plate,gtin,stock\np1,00000096385074,3\np1,04006381333931,2\n")
    (tmp_path / "prices.toml").write_text(
        "[[price]]\ngtin = '0000096385074'\nprice = 1\n[[offer]]\nid = 'x'\ngtins = ['04006381333931']\npercent = 10\n"
        "[[restriction]]\ngtins = ['000096385074']\nminimum_age = 18\n"
    )
    store = Store.load(tmp_path)
    assert [(facing.gtin, facing.stock) for facing in store.planogram] == [("96385074", 3), ("4006381333931", 2)]
    assert store.prices == Prices(
        price=(Price(gtin="96385074", price=1),),
        offer=(Offer(id="x", gtins=("4006381333931",), percent=10),),
        restriction=(Restriction(gtins=("96385074",), minimum_age=18),),
    )
    (tmp_path / "planogram.csv").write_text("plate,gtin,stock\np1,00000096385074,3\np1,96385074,2\n")
    with pytest.raises(ConfigError, match=r"\('p1', '00000096385074'\) and \('p1', '96385074'\), one number 2 times"):
        Store.load(tmp_path)
