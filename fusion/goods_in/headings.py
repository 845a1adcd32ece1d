"""Headings of spreadsheets: which column of a store's tables a heading means, in which unit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusion.errors import ConfigError

# What people call the columns, in English, German, French, Spanish, Italian and Dutch; compared without accents,
# capitals and punctuation. The contract's own names come first.
WORDS = {
    "gtin": (
        "gtin,ean,ean code,eancode,ean 13,ean13,ean nummer,ean nr,gtin ean,ean gtin,upc,"
        "barcode,bar code,strichcode,code barres,code barre,codigo de barras,codice a barre,"
        "streepjescode,artikelnummer ean,code ean,digital link"
    ),
    "name": (
        "name,product,product name,article,article name,item,item name,description,artikel,"
        "artikelname,bezeichnung,artikelbezeichnung,produkt,produktname,warenbezeichnung,"
        "beschreibung,designation,libelle,produit,nom,nombre,producto,articulo,descripcion,"
        "prodotto,nome,descrizione,articolo,productnaam,omschrijving,naam"
    ),
    "weight_g": (
        "weight,unit weight,piece weight,gross weight,gewicht,stuckgewicht,gewicht pro stuck,"
        "bruttogewicht,poids,poids unitaire,peso,peso unitario,gewicht per stuk,stukgewicht"
    ),
    "weight_sd_g": (
        "weight sd,weight spread,standard deviation,sd,standardabweichung,streuung,"
        "gewichtsstreuung,ecart type,desviacion,deviazione standard,standaardafwijking"
    ),
    "price": (
        "price,unit price,sales price,selling price,retail price,gross price,preis,verkaufspreis,"
        "vk,vk preis,vk brutto,bruttopreis,ladenpreis,einzelpreis,endpreis,prix,prix de vente,"
        "prix ttc,precio,pvp,precio de venta,prezzo,prezzo di vendita,prijs,verkoopprijs"
    ),
    "vat_rate": (
        "vat rate,vat,tax,tax rate,sales tax,mwst,mehrwertsteuer,mwst satz,steuersatz,ust,"
        "umsatzsteuer,tva,taux tva,iva,tipo iva,aliquota iva,btw,btw tarief"
    ),
    "plate": (
        "plate,scale,plate id,tray,platte,waage,waagplatte,plattform,fach,wiegeplatte,plateau,"
        "bandeja,balanza,bilancia,piatto,weegplateau"
    ),
    "stock": (
        "stock,pieces,quantity,qty,count,on hand,bestand,anzahl,stuck,stuckzahl,menge,"
        "quantite,pieces en rayon,nombre de pieces,cantidad,existencias,quantita,pezzi,giacenza,"
        "aantal,voorraad"
    ),
    "x": "x,x position",
    "y": "y,y position",
    "z": "z,height,hohe,hauteur,altura,altezza,hoogte",
    "width": "width,breite,largeur,ancho,larghezza,breedte",
    "depth": "depth,tiefe,profondeur,profundidad,profondita,diepte",
    "yaw": "yaw,turn,rotation,direction,drehung,winkel,orientation,giro,rotazione,draaiing",
    "capacity_g": (
        "capacity,maximum load,max load,load,hochstlast,traglast,kapazitat,capacite,"
        "charge maximale,capacidad,portata,draagvermogen"
    ),
}
# What a number in a column may be measured in, and what that is in the contract's unit.
UNITS = {
    "weight": {"g": "1", "kg": "1000", "mg": "0.001", "lb": "453.59237", "oz": "28.349523125"},
    "length": {"m": "1", "cm": "0.01", "mm": "0.001", "in": "0.0254", "ft": "0.3048"},
    "angle": {"rad": "1", "deg": "0.017453292519943295"},
    "price": {"major": "", "minor": ""},
}
KINDS = {
    **dict.fromkeys(("weight_g", "weight_sd_g", "capacity_g"), "weight"),
    **dict.fromkeys(("x", "y", "z", "width", "depth"), "length"),
    "yaw": "angle",
    "price": "price",
}
_SPELLINGS = {
    "weight": {"gr": "g", "gram": "g", "gramm": "g", "grams": "g", "gramme": "g", "kilo": "kg", "kilogramm": "kg"}
    | {"lbs": "lb", "kilogram": "kg", "pounds": "lb", "ounces": "oz"},
    "length": {"meter": "m", "metre": "m", "meters": "m", "metres": "m", "inch": "in"},
    "angle": {"°": "deg", "grad": "deg", "degrees": "deg", "radians": "rad", "radiant": "rad"},
    "price": {"ct": "minor", "cent": "minor", "cents": "minor", "c": "minor", "minor units": "minor", "euro": "major"}
    | {"€": "major", "$": "major", "£": "major", "chf": "major", "eur": "major", "usd": "major", "gbp": "major"},
}
_PIECES = set("stuck,stk,st,piece,pieces,pc,pcs,each,ea,x,units,pezzi,pz,piezas,uds,stuks".split(","))
_HARMLESS = _PIECES | set("brutto,gross,incl vat,inkl mwst,incl,inkl,ttc".split(","))
_FIELDS = {word: name for name, words in WORDS.items() for word in (name.replace("_", " "), *words.split(","))}


@dataclass(frozen=True)
class Column:
    """A column of a spreadsheet that is a column of a store's table.

    Attributes:
        field: the contract's name of it.
        at: its place in a row.
        heading: as it stands in the file.
        unit: one of UNITS of its kind; "" where the heading states none.
    """

    field: str
    at: int
    heading: str
    unit: str = ""


def unit_of(text: str, kind: str) -> str:
    """The unit that a text names; "" where it names none of this kind."""
    plain = text.strip().strip(".").casefold()
    spelt = _SPELLINGS[kind].get(plain, plain)
    return spelt if spelt in UNITS[kind] else ""


def is_pieces(text: str) -> bool:
    """Whether what stands beside a number of pieces means pieces, or is empty; cartons hold another number of them."""
    return not text or _plain(text) in _PIECES


def found_columns(name: str, header: Sequence[str], chosen: Mapping[str, str]) -> tuple[dict[str, Column], list[str]]:
    """The columns that headings name, by field, and the headings that name none.

    Args:
        name: of the file.
        header: its headings.
        chosen: heading by field, as the user decided; the heading "" leaves the field out.

    Raises:
        ConfigError: two headings mean the same, or a chosen one is not there.
    """
    faults = [
        f"--column {field}={heading}: want one of the headings {', '.join(map(repr, header))}"
        for field, heading in chosen.items()
        if heading and heading not in header
    ]
    found: dict[str, list[Column]] = {}
    for at, heading in enumerate(header):
        for field in [f for f, h in chosen.items() if h == heading] or [_field(heading)]:
            if field and (field not in chosen or chosen[field] == heading):
                found.setdefault(field, []).append(Column(field, at, heading, _unit(heading, KINDS.get(field, ""))))
    for field, columns in found.items():
        if len(columns) > 1:
            shown = " or ".join(f"--column '{field}={column.heading}'" for column in columns)
            same = len({column.heading for column in columns}) == 1
            advice = "rename one of them" if same else f"pass {shown}"
            faults.append(f"{name}:1: {len(columns)} headings mean {field}; {advice}")
    if faults:
        raise ConfigError(faults)
    used = {columns[0].at for columns in found.values()}
    return {field: columns[0] for field, columns in found.items()}, [h for i, h in enumerate(header) if i not in used]


def _field(heading: str) -> str:
    word, unit = _parted(heading)
    field = _FIELDS.get(_plain(word), "") or _FIELDS.get(_plain(heading), "")
    # Prices by the kilogram, or without VAT, and weights in litres are something else.
    return field if field and all(_belongs(part, field) for part in unit) else ""


def _unit(heading: str, kind: str) -> str:
    """The unit that a heading states, in brackets or as its last word: `Gewicht (kg)`, `weight_g`, `Preis in ct`."""
    return next((found for part in _parted(heading)[1] if kind and (found := unit_of(part, kind))), "")


def _parted(heading: str) -> tuple[str, list[str]]:
    """A heading's words, and what it states behind them: in brackets, after a slash, or as a unit at its end."""
    match = re.search(r"[(\[/]", heading)
    if match:
        word, behind = heading[: match.start()], heading[match.start() :]
        inner, unit = _parted(word)
        return inner, [*unit, *filter(None, (part.strip() for part in re.split(r"[()\[\]/]|\s+in\s+", behind)))]
    words = re.split(r"[\s_]+", heading.strip())
    if len(words) > 1 and (words[-1] == "%" or any(unit_of(words[-1], kind) for kind in UNITS)):
        rest = words[:-1] if words[-2].casefold() != "in" else words[:-2]
        return " ".join(rest), words[-1:]
    return heading, []


def _belongs(part: str, field: str) -> bool:
    """Whether what stands behind a heading's words can stand behind this field."""
    kind = KINDS.get(field, "")
    return (
        (bool(kind) and unit_of(part, kind) != "")
        or (field == "vat_rate" and part in ("%", "percent", "prozent"))
        or _plain(part) in _HARMLESS
    )


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss"))
    return " ".join(re.sub(r"[^a-z0-9]+", " ", "".join(c for c in folded if not unicodedata.combining(c))).split())
