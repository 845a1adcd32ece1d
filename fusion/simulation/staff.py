"""An employee's shift: shelves that have run low are restocked, misplaced goods brought home."""

from __future__ import annotations

from collections.abc import Iterator

from fusion.simulation.goods import Lying
from fusion.simulation.person import Person
from fusion.simulation.reaching import take_hold
from fusion.simulation.shop import Shop
from fusion.simulation.walking import go_to_shelf


def work(shop: Shop, person: Person) -> Iterator[None]:
    """A few errands, as long as there is time."""
    for _ in range(int(person.random.integers(3, 7))):
        if not shop.time_for(person):
            return
        strays = shop.stock.misplaced()
        if strays and person.random.random() < 0.7:
            plate, gtin = strays[int(person.random.integers(len(strays)))]
            yield from _bring_home(shop, person, plate, gtin)
        else:
            low = _low_facings(shop)
            if not low:
                return
            plate, gtin = low[int(person.random.integers(len(low)))]
            yield from _restock(shop, person, plate, gtin)


def _bring_home(shop: Shop, person: Person, plate: int, gtin: str) -> Iterator[None]:
    random, stock = person.random, shop.stock
    if not (yield from go_to_shelf(shop, person, plate)):
        return
    lying = stock.take(plate, gtin, 1, random)
    if not lying:
        return
    yield from take_hold(shop, person, plate, lying, -1)
    homes = [home for home in stock.home[gtin] if len(shop.floor.stands[home])]
    home = homes[int(random.integers(len(homes)))] if homes else plate
    # A piece whose home cannot be reached goes to the back room.
    if home == plate or (yield from go_to_shelf(shop, person, home)):
        yield from take_hold(shop, person, home, [stock.lay(lying[0].piece, home)], +1)


def _restock(shop: Shop, person: Person, plate: int, gtin: str) -> Iterator[None]:
    random, stock = person.random, shop.stock
    if not (yield from go_to_shelf(shop, person, plate)):
        return
    for _ in range(int(random.integers(1, 4))):
        n = int(random.integers(1, 3))
        room_g = shop.store.plates[plate].capacity_g - stock.load_g(plate)
        if room_g < 2.5 * n * stock.products[gtin].weight_g:
            break
        pieces = [stock.lay(stock.new_piece(gtin), plate) for _ in range(n)]
        yield from take_hold(shop, person, plate, pieces, +1)
    person.standing = None


def _low_facings(shop: Shop) -> list[Lying]:
    """Plate and product of the eight emptiest facings that can be reached."""
    stock = shop.stock
    shares = [(stock.count(plate, gtin) / max(n, 1), plate, gtin) for plate, gtin, n in stock.facings]
    return [Lying(plate, gtin) for _, plate, gtin in sorted(shares) if len(shop.floor.stands[plate])][:8]
