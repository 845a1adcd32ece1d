"""`fusion worksheet`: one page on which a person enters, before the shelves, where each plate is and what lies on it.

The page holds everything it needs and asks no server, so that it works on a phone in a shop without a network. What was
entered stays in the browser until it is saved as a CSV file, which `fusion import` reads.
"""

from __future__ import annotations

import math

from fusion.errors import ConfigError
from fusion.show.page import filled, page_file, script_json
from fusion.store.models import Store

# A phone's browser offers a list of this many goods within a moment, and the page stays below a few megabytes.
GOODS_MAX = 20_000


def worksheet(store: Store) -> str:
    """The page for a store: its plates and goods, ready to be corrected.

    Args:
        store: plates as planned or as they are; products to choose from; what lies where so far.

    Returns:
        HTML in which nothing is loaded from elsewhere.

    Raises:
        ConfigError: more goods than a phone can offer.
    """
    if len(store.products) > GOODS_MAX:
        raise ConfigError(
            f"products.csv: want at most {GOODS_MAX} products on a worksheet, got {len(store.products)}; make"
            " planogram.csv in a spreadsheet, and run `fusion import`"
        )
    goods: dict[str, list[list[object]]] = {plate.plate: [] for plate in store.plates}
    for facing in store.planogram:
        goods[facing.plate].append([facing.gtin, facing.stock])
    data = {
        "id": store.id,
        "floor": store.floor,
        "plates": [
            {
                "plate": plate.plate,
                # Centimetres and degrees, as people measure; millimetres are as exact as a tape.
                **{key: round(100 * getattr(plate, key), 1) for key in ("x", "y", "z", "width", "depth")},
                "yaw": round(math.degrees(plate.yaw), 1),
                "capacity": round(plate.capacity_g),
                "goods": goods[plate.plate],
            }
            for plate in store.plates
        ],
        "products": [
            [product.gtin, product.name, product.weight_g, product.weight_sd_g, product.price, product.vat_rate]
            for product in store.products
        ],
    }
    return filled(
        "worksheet.html",
        {"css": page_file("worksheet.css"), "data": script_json(data), "script": page_file("worksheet.js")},
    )
