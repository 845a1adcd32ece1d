"""The tables of the books, rendered as SQL for SQLite and for PostgreSQL.

Rows can only be added: triggers refuse every change, removal and insertion before the end. Statements elsewhere in the
package are written once, with `?` for values.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

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


def triggers_fault(schema: str, present: set[str]) -> str | None:
    """How the triggers of a database differ from those that a schema creates; None where they are the same."""
    wanted = set(re.findall(r"^CREATE TRIGGER (\w+)", schema, re.MULTILINE))
    return None if present == wanted else f"schema: want the triggers {sorted(wanted)}, got {sorted(present)}"
