"""The tables of the books, rendered as SQL for SQLite and for PostgreSQL.

Rows can only be added: triggers refuse every change, removal and insertion before the end. Statements elsewhere in the
package are written once, with `?` for values.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

Row = tuple[Any, ...]

_TABLES = """
CREATE TABLE book (
  id {integer} PRIMARY KEY CHECK (id = 1),
  format_version {integer} NOT NULL,
  store TEXT NOT NULL,
  currency TEXT NOT NULL
) {strict};
CREATE TABLE entry (
  seq {integer} PRIMARY KEY,
  t_ns {integer} NOT NULL,
  kind TEXT NOT NULL,
  visit TEXT NOT NULL,
  key TEXT NOT NULL UNIQUE,
  details TEXT NOT NULL,
  hash {bytes} NOT NULL
) {strict};
CREATE INDEX entry_of_visit ON entry (visit, seq);
CREATE INDEX entry_of_kind ON entry (kind, seq);
CREATE TABLE posting (
  entry {integer} NOT NULL REFERENCES entry (seq) DEFERRABLE INITIALLY DEFERRED,
  line {integer} NOT NULL,
  account TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount {integer} NOT NULL,
  PRIMARY KEY (entry, line)
) {strict_without_rowid};
"""
SQLITE_SCHEMA = (
    _TABLES.format(integer="INTEGER", bytes="BLOB", strict="STRICT", strict_without_rowid="STRICT, WITHOUT ROWID")
    + """
CREATE TRIGGER book_update BEFORE UPDATE ON book BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER book_delete BEFORE DELETE ON book BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER entry_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER entry_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER posting_update BEFORE UPDATE ON posting BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
CREATE TRIGGER posting_delete BEFORE DELETE ON posting BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
-- INSERT OR REPLACE deletes without asking the triggers above, so an insert may only go to the end.
CREATE TRIGGER entry_insert BEFORE INSERT ON entry
  WHEN NEW.seq <= (SELECT coalesce(max(seq), 0) FROM entry) OR EXISTS (SELECT 1 FROM entry WHERE key = NEW.key)
  BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
-- Postings come just before their entry, and none after it.
CREATE TRIGGER posting_insert BEFORE INSERT ON posting
  WHEN NEW.entry <= (SELECT coalesce(max(seq), 0) FROM entry)
    OR EXISTS (SELECT 1 FROM posting WHERE entry = NEW.entry AND line = NEW.line)
  BEGIN SELECT RAISE(ABORT, 'books are only added to'); END;
"""
)
POSTGRES_SCHEMA = (
    *_TABLES.format(integer="BIGINT", bytes="BYTEA", strict="", strict_without_rowid="").strip().split(";\n"),
    """CREATE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'books are only added to'; END $$""",
    # As in SQLite: an entry goes to the end, its postings just before it.
    """CREATE FUNCTION entry_at_the_end() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
       $$ BEGIN
         IF NEW.seq <= (SELECT coalesce(max(seq), 0) FROM entry) THEN
           RAISE EXCEPTION 'books are only added to';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE FUNCTION posting_at_the_end() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
       $$ BEGIN
         IF NEW.entry <= (SELECT coalesce(max(seq), 0) FROM entry) THEN
           RAISE EXCEPTION 'books are only added to';
         END IF;
         RETURN NEW;
       END $$""",
    *(
        f"CREATE TRIGGER {table}_{event} BEFORE {event.upper()} ON {table} "
        f"FOR EACH {'STATEMENT' if event == 'truncate' else 'ROW'} EXECUTE FUNCTION only_added()"
        for table in ("book", "entry", "posting")
        for event in ("update", "delete", "truncate")
    ),
    "CREATE TRIGGER entry_insert BEFORE INSERT ON entry FOR EACH ROW EXECUTE FUNCTION entry_at_the_end()",
    "CREATE TRIGGER posting_insert BEFORE INSERT ON posting FOR EACH ROW EXECUTE FUNCTION posting_at_the_end()",
)
COLUMNS = {
    "book": "id, format_version, store, currency",
    "entry": "seq, t_ns, kind, visit, key, details, hash",
    "posting": "entry, line, account, currency, amount",
}
INSERT = {
    table: f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' for _ in columns.split(','))})"
    for table, columns in COLUMNS.items()
}


def statements(script: str) -> Iterator[str]:
    """Single statements of an SQLite script; a trigger's body is part of its statement."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


class Definition(NamedTuple):
    """What a definition defines: its kind, such as "trigger", "function" or "key of" a table, and its name."""

    kind: str
    name: str


@cache
def sqlite_definitions() -> dict[Definition, str]:
    """Text of everything that the schema of SQLite creates."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SQLITE_SCHEMA)
        rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return {Definition(kind, name): text for kind, name, text in rows}


def postgres_definitions(schema: str) -> dict[Definition, str]:
    """Triggers as PostgreSQL writes them, and the functions: language, text, settings, whether it runs as its owner."""
    found = {}
    for statement in POSTGRES_SCHEMA:
        words = statement.split()
        if words[:2] == ["CREATE", "TRIGGER"]:
            found[Definition("trigger", words[2])] = " ".join(words)
        elif words[:2] == ["CREATE", "FUNCTION"]:
            head, text, _ = statement.split("$$")
            settings = f"{{search_path={schema}}}" if "SET search_path FROM CURRENT" in head else ""
            found[Definition("function", words[2].partition("(")[0])] = f"plpgsql{text}{settings}"
    return found


def definitions_fault(wanted: Mapping[Definition, str], held: Mapping[Definition, str]) -> str | None:
    """How the definitions of a database differ from those that a schema creates; None where they are the same.

    A trigger too many is a fault as well; what else a database holds does not concern the books.
    """
    want, got = ({name for kind, name in definitions if kind == "trigger"} for definitions in (wanted, held))
    if want != got:
        return f"schema: want the triggers {sorted(want)}, got {sorted(got)}"
    for definition, text in wanted.items():
        if held.get(definition) != text:
            state = "another" if definition in held else "none"
            return f"schema: {definition.kind} {definition.name}: want it as the books create it, got {state}"
    return None
