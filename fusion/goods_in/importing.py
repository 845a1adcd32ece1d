"""`fusion import`: spreadsheets into the tables of a store folder, with an account of every change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from fusion.errors import ConfigError
from fusion.files.atomic import replace_file
from fusion.goods_in.conversion import TABLES, Change, Choices, Converted, converted
from fusion.goods_in.spreadsheets import read_spreadsheet
from fusion.store.gs1 import Codes, InStorePattern
from fusion.store.iso4217 import CURRENCIES
from fusion.store.tables import write_table
from fusion.store.toml_files import read_toml
from fusion.store.values import validation_faults

# Rows of one kind of change that are shown; all are counted.
SHOWN = 3


class _OwnCodes(BaseModel):
    """What an import needs of store.toml, which holds much more."""

    in_store_codes: tuple[InStorePattern, ...] = ()


@dataclass(frozen=True)
class Import:
    """What an import makes of a file.

    Attributes:
        file: its name.
        store: the folder whose tables are written.
        notes: what had to be found out about the file, as (what, value).
        made: the tables, the changes, and the columns.
    """

    file: str
    store: Path
    notes: list[tuple[str, str]]
    made: Converted

    @classmethod
    def read(
        cls,
        file: Path,
        store: Path,
        choices: Choices,
        *,
        encoding: str | None = None,
        separator: str | None = None,
        sheet: str | None = None,
    ) -> Import:
        """Read a spreadsheet for a store, and write nothing.

        Args:
            file: CSV or XLSX.
            store: a store folder; its store.toml gives the currency and the patterns of its own codes.
            choices: what the user decided about the cells.
            encoding: see `read_spreadsheet`, as for the next two.
            separator: of a CSV file.
            sheet: of a workbook.

        Raises:
            ConfigError: every fault, or what has to be decided and by which option.
            OSError: the file cannot be read.
        """
        settings = read_toml(store / "store.toml", "a store folder (`fusion init` writes one)")
        currency = settings.get("currency")
        if not isinstance(currency, str) or currency not in CURRENCIES:
            raise ConfigError(f"{store.name}/store.toml: currency: want an ISO 4217 code such as EUR, got {currency!r}")
        try:
            patterns = _OwnCodes.model_validate(settings).in_store_codes
        except ValidationError as error:
            raise ConfigError(list(validation_faults(error, f"{store.name}/store.toml: "))) from None
        found = read_spreadsheet(file, encoding=encoding, separator=separator, sheet=sheet)
        made = converted(file.name, found, currency, Codes(patterns), choices)
        return cls(file.name, store, found.notes, made)

    def text(self) -> str:
        """The account of the import: how the file was read, then every kind of change with its first rows."""
        lines = [f"{self.file}: {what} {value}" for what, value in self.notes]
        renamed = [f"{c.heading!r} is {f}" for f, c in self.made.columns.items() if c.heading != f]
        lines += [f"columns: {', '.join(renamed)}"] if renamed else []
        lines += [f"left out: {', '.join(map(repr, self.made.left_out))}"] if self.made.left_out else []
        kinds: dict[str, list[Change]] = {}
        for change in self.made.changes:
            kinds.setdefault(change.kind, []).append(change)
        for kind, changes in kinds.items():
            shown = ", ".join(f"row {c.line} {c.before!r} to {c.after!r}" for c in changes[:SHOWN])
            more = f", and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
            lines.append(f"{kind} ({len(changes)}): {shown}{more}")
        return "\n".join(lines)

    def write(self, *, replace: bool) -> list[str]:
        """Write the tables. Returns their files, with how many rows each has.

        Args:
            replace: whether tables that are there already, and differ, are overwritten.

        Raises:
            ConfigError: a table is there already, and differs; nothing was written.
            OSError: a file cannot be written.
        """
        contents = {
            self.store / f"{table}.csv": (write_table(list(TABLES[table].model_fields), rows), len(rows))
            for table, rows in self.made.tables.items()
        }
        there = [path.name for path, (text, _) in contents.items() if path.exists() and _differs(path, text)]
        if there and not replace:
            raise ConfigError(
                f"{self.store} has {' and '.join(there)} already; nothing was written. Pass --replace to overwrite"
            )
        for path, (text, _) in contents.items():
            replace_file(path, text)
        return [f"{path}: {n} rows" for path, (_, n) in contents.items()]


def _differs(path: Path, text: str) -> bool:
    """Whether a table holds rows that would be lost."""
    there = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    return there.strip().count(b"\n") > 0 and there != text.encode()


def columns_chosen(options: Sequence[str]) -> dict[str, str]:
    """FIELD=HEADING options by field. Raises ConfigError: another form, or a field that no table has."""
    fields = {field for model in TABLES.values() for field in model.model_fields}
    chosen = {}
    for option in options:
        field, found, heading = option.partition("=")
        if not found or field not in fields:
            raise ConfigError(f"--column {option}: want FIELD=HEADING with a field of {', '.join(sorted(fields))}")
        chosen[field] = heading
    return chosen
