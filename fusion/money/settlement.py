"""The provider's settlement file compared with the books: they agree to the cent, or each difference is named.

A CSV file with the columns reference, kind, amount, currency, fee, date, and if the provider has it key (the
idempotency key of the request). Amounts are decimals such as 12.34 and never negative; the kind is capture, refund,
chargeback or chargeback_returned, the date a day such as 2026-03-05 on the store's clock. A chargeback has the
reference of its capture. The file covers the days from its first to its last one.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

from fusion.errors import ConfigError
from fusion.money.asking import reference_subject
from fusion.money.chargebacks import charge_back, chargeback_name
from fusion.money.entries import Entry
from fusion.money.history import ASKED, DONE, PROVIDER
from fusion.money.ledger import Ledger
from fusion.money.providers.provider import REFERENCE_MAX
from fusion.store.iso4217 import decimal_places
from fusion.store.models import Store

COLUMNS = ("reference", "kind", "amount", "currency", "fee", "date")
KINDS = ("capture", "refund", "chargeback", "chargeback_returned")
# A busy store's month has some ten thousand payments; a longer file is something else.
LINES_MAX = 1_000_000
LINE_MAX_CHARACTERS = 2000
# Whole amounts up to ten digits, so that no sum exceeds what the books hold.
_AMOUNT = re.compile(r"(\d{1,10})(?:\.(\d{1,3}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a settlement file; amounts in minor units."""

    row: int
    reference: str
    kind: str
    amount: int
    fee: int
    day: datetime.date
    key: str = ""

    @property
    def event(self) -> str:
        """The name under which a chargeback of this line is booked."""
        return f"{self.kind} {self.day} {self.reference}"


@dataclass(frozen=True, slots=True)
class Settlement:
    """A settlement file beside the books.

    Attributes:
        first, last: the days that the file covers.
        n_lines: lines by kind.
        sums: their amounts, minor units, by kind.
        fees: of all lines.
        differences: a sentence for each; empty where both agree to the cent.
    """

    first: datetime.date
    last: datetime.date
    n_lines: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    fees: int = 0
    differences: tuple[str, ...] = ()

    def text(self, store: Store) -> str:
        """The comparison as people read it."""
        lines = [f"{store.name}, {self.first} to {self.last}"]
        for kind in KINDS:
            if self.n_lines[kind]:
                lines.append(f"  {kind:<20}{self.n_lines[kind]:>8}{store.price_text(self.sums[kind]):>18}")
        lines.append(f"  {'fees':<28}{store.price_text(self.fees):>18}")
        if not self.differences:
            return "\n".join([*lines, "the file and the books agree to the cent"])
        return "\n".join([*lines, f"{len(self.differences)} differences:", *(f"  {one}" for one in self.differences)])


def read_settlement(path: Path, store: Store) -> list[Line]:
    """The lines of a settlement file.

    Raises:
        ConfigError: with every fault, each naming file, row and column.
    """
    lines: list[Line] = []
    faults: list[str] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(_short_lines(opened, path), strict=True)
            columns = tuple(rows.fieldnames or ())
            if columns not in (COLUMNS, (*COLUMNS, "key")):
                raise ConfigError(f"{path}:1: want the columns {','.join(COLUMNS)} and perhaps key")
            for row in rows:
                try:
                    lines.append(_line(rows.line_num, row, store))
                except ValueError as error:
                    faults.append(f"{path}:{rows.line_num}: {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}") from None
    if not faults and not lines:
        faults.append(f"{path}: want at least one line, got none")
    if faults:
        raise ConfigError(faults)
    return lines


def _short_lines(opened: Iterator[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(opened, 1):
        if number > LINES_MAX or len(line) > LINE_MAX_CHARACTERS:
            raise ConfigError(f"{path}: want {LINES_MAX} lines of {LINE_MAX_CHARACTERS} characters at most")
        yield line


def _line(number: int, row: dict[str, str | None], store: Store) -> Line:
    if None in row or None in row.values():
        raise ValueError(f"want {len(COLUMNS)} fields, or one more with key")
    text = {name: value or "" for name, value in row.items()}
    if not 1 <= len(text["reference"]) <= REFERENCE_MAX:
        raise ValueError(f"reference: want 1 to {REFERENCE_MAX} characters, got {len(text['reference'])}")
    if text["kind"] not in KINDS:
        raise ValueError(f"kind: want {', '.join(KINDS)}, got {text['kind'][:40]!r}")
    if text["currency"] != store.currency:
        raise ValueError(f"currency: want {store.currency}, got {text['currency'][:40]!r}")
    amount, fee = (_minor(name, text[name], store.currency) for name in ("amount", "fee"))
    try:
        day = datetime.date.fromisoformat(text["date"])
    except ValueError:
        raise ValueError(f"date: want a day such as 2026-03-05, got {text['date'][:40]!r}") from None
    return Line(number, text["reference"], text["kind"], amount, fee, day, text.get("key", ""))


def _minor(name: str, text: str, currency: str) -> int:
    places = decimal_places(currency)
    match = _AMOUNT.fullmatch(text)
    if match is None or len(match[2] or "") not in ((0,) if not places else (0, places)):
        example = f"12.{'3' * places}" if places else "12"
        raise ValueError(f"{name}: want an amount such as {example}, got {text[:40]!r}")
    minor_in_major: int = 10**places
    return int(match[1]) * minor_in_major + int(match[2] or 0)


# ---- comparing -------------------------------------------------------------------------------------------------------


def compare(ledger: Ledger, store: Store, lines: list[Line]) -> Settlement:
    """The file beside the books; posts nothing.

    Raises:
        LedgerError: the books cannot be read.
    """
    first, last = min(line.day for line in lines), max(line.day for line in lines)
    return Settlement(
        first,
        last,
        n_lines=Counter(line.kind for line in lines),
        sums=sum((Counter({line.kind: line.amount}) for line in lines), Counter()),
        fees=sum(line.fee for line in lines),
        differences=tuple(_differences(ledger, store, lines, first, last)),
    )


def post_chargebacks(ledger: Ledger, store: Store, lines: list[Line]) -> list[str]:
    """Book the chargebacks of a file that the books lack; returns their visits, which owe again.

    Raises:
        LedgerError: a chargeback concerns no capture of these books, or more than is left of it. Those before it are
            booked, and repeating the call books none twice.
    """
    visits = []
    for line in lines:
        if line.kind.startswith("chargeback"):
            t_ns = _midnight_ns(line.day, store)
            visits.append(
                charge_back(
                    ledger, store.currency, line.reference, line.amount,
                    event=line.event, t_ns=t_ns, returned=line.kind == "chargeback_returned",
                )
            )  # fmt: skip
    return visits


def _differences(
    ledger: Ledger, store: Store, lines: list[Line], first: datetime.date, last: datetime.date
) -> Iterator[str]:
    price = store.price_text
    waiting = {f"{store.id}/{entry.key.replace('/payment ', '/')}": entry for entry in ledger.unanswered(ASKED)}
    seen: set[tuple[str, str]] = set()
    for line in lines:
        what = f"row {line.row}: {line.kind} {line.reference} of {price(line.amount)}"
        if line.kind.startswith("chargeback"):
            given = ledger.recorded(reference_subject("capture", line.reference), "given")
            if given is None:
                yield f"{what}: the books have no such capture"
            elif ledger.recorded(given.request["visit"], chargeback_name(line.event)) is None:
                yield f"{what}: not in the books of visit {given.request['visit']}; --post books it"
            continue
        if (line.kind, line.reference) in seen:
            yield f"{what}: the file has it twice"
            continue
        seen.add((line.kind, line.reference))
        entry = _booked(ledger, line)
        if entry is None and line.key in waiting:
            asked = waiting[line.key]
            yield f"{what}: visit {asked.visit} waits for this answer; enter it with `resolve`"
        elif entry is None:
            yield f"{what}: not in the books"
        elif _moved(entry) != line.amount:
            yield f"{what}: the books of visit {entry.visit} have {price(_moved(entry))}"
    begin_ns, end_ns = _midnight_ns(first, store), _midnight_ns(last + datetime.timedelta(days=1), store)
    names = {DONE["capture"]: "capture", DONE["refund"]: "refund"}
    for entry in ledger.entries_between(begin_ns, end_ns):
        kind = names.get(entry.kind)
        if kind is not None and (kind, entry.request["reference"]) not in seen:
            reference = entry.request["reference"] or "without a reference"
            yield f"visit {entry.visit}: {kind} {reference} of {price(_moved(entry))}: not in the file"


def _booked(ledger: Ledger, line: Line) -> Entry | None:
    """The entry of the capture or refund that a line is about."""
    given = ledger.recorded(reference_subject(line.kind, line.reference), "given")
    if given is None:
        return None
    return ledger.recorded(given.request["visit"], f"payment {given.request['step']}/answer")


def _moved(entry: Entry) -> int:
    """What a capture or a refund moved, minor units."""
    return abs(entry.moved(PROVIDER))


def _midnight_ns(day: datetime.date, store: Store) -> int:
    """The first instant of a day on the store's clock, UTC nanoseconds."""
    first = datetime.datetime.combine(day, datetime.time(), ZoneInfo(store.timezone))
    return int(first.timestamp()) * 10**9
