"""The tables, triggers and views of the chain's book in PostgreSQL, schema `chain`, and what differs from them.

The text of functions and the definitions of views, triggers and keys are part of the format: reconciling compares those
of a database with these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fusion.live import outbox
from fusion.money.schema import Definition

FORMAT_VERSION = 1

# Columns of each table besides `store`. The first is the row's number, or that of a posting's entry.
COLUMNS = {
    "entry": "seq, t_ns, kind, visit, key, details, hash",
    "posting": "entry, line, account, currency, amount",
    **outbox.COLUMNS,
}
STORE_COLUMNS = "name, currency, timezone, retailer, brand"
TABLE_OF_STREAM = {"ledger": "entry", "goods": "goods", "health": "health"}
_KEY = {"entry": "store, seq", "posting": "store, entry, line", "goods": "store, seq", "health": "store, seq"}
_TYPES = {
    **dict.fromkeys("seq t_ns quantity entry line amount".split(), "BIGINT"),
    "hash": "BYTEA",
}  # the others are text


def _table(table: str) -> str:
    columns = [f"{name} {_TYPES.get(name, 'TEXT')} NOT NULL" for name in COLUMNS[table].split(", ")]
    columns[0] += f" CHECK ({columns[0].split()[0]} > 0)"
    return f"CREATE TABLE {table} (store TEXT NOT NULL, {', '.join(columns)}, PRIMARY KEY ({_KEY[table]}))"


_TABLES = (
    "CREATE SCHEMA chain",
    "CREATE TABLE book (id BIGINT PRIMARY KEY CHECK (id = 1), format_version BIGINT NOT NULL)",
    f"INSERT INTO book VALUES (1, {FORMAT_VERSION})",
    """CREATE TABLE store (id TEXT PRIMARY KEY, name TEXT NOT NULL, currency TEXT NOT NULL, timezone TEXT NOT NULL,
       retailer TEXT, brand TEXT)""",
    """CREATE TABLE mark (store TEXT NOT NULL REFERENCES store (id), stream TEXT NOT NULL, seq BIGINT NOT NULL,
       hash BYTEA NOT NULL, PRIMARY KEY (store, stream))""",
    *map(_table, _KEY),
    # Rows arrive nearly in time order, so this small kind of index suffices for a range of time.
    "CREATE INDEX entry_by_time ON entry USING brin (t_ns)",
    """CREATE FUNCTION only_added() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN RAISE EXCEPTION 'the chain''s book is only added to'; END $$""",
    """CREATE FUNCTION only_forward() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN
         IF (NEW.store, NEW.stream) <> (OLD.store, OLD.stream) OR NEW.seq < OLD.seq THEN
           RAISE EXCEPTION 'a mark only moves forward';
         END IF;
         RETURN NEW;
       END $$""",
    *(
        f"CREATE TRIGGER {table}_{event} BEFORE {event.upper()} ON {table} "
        f"FOR EACH {'STATEMENT' if event == 'truncate' else 'ROW'} "
        f"EXECUTE FUNCTION {'only_forward' if (table, event) == ('mark', 'update') else 'only_added'}()"
        for table in ("book", "mark", *_KEY)
        for event in ("update", "delete", "truncate")
    ),
)

# For people. Amounts are minor units, days and hours those of the store's own clock.
_VIEWS = (
    """CREATE FUNCTION local_time(t_ns BIGINT, zone TEXT) RETURNS TIMESTAMP LANGUAGE sql IMMUTABLE AS
       $$ SELECT to_timestamp((t_ns / 1000000000)::DOUBLE PRECISION) AT TIME ZONE zone $$""",
    # An entry's sales; a reversal counts negatively.
    """CREATE VIEW sale AS
       SELECT e.store, s.retailer, s.brand, e.seq, e.t_ns, local_time(e.t_ns, s.timezone) AS at, e.visit, e.kind,
              p.currency, -coalesce(sum(p.amount) FILTER (WHERE p.account LIKE 'revenue %'), 0) AS net,
              -coalesce(sum(p.amount) FILTER (WHERE p.account LIKE 'vat %'), 0) AS vat, -sum(p.amount) AS gross
       FROM entry e JOIN store s ON s.id = e.store JOIN posting p ON p.store = e.store AND p.entry = e.seq
       WHERE p.account LIKE 'revenue %' OR p.account LIKE 'vat %'
       GROUP BY e.store, s.retailer, s.brand, e.seq, s.timezone, p.currency""",
    """CREATE VIEW sales AS
       SELECT store, retailer, brand, date_trunc('hour', at) AS hour, currency, count(*) FILTER (WHERE gross > 0)
              AS charges, count(*) FILTER (WHERE gross < 0) AS reversals, sum(net) AS net, sum(vat) AS vat,
              sum(gross) AS gross
       FROM sale GROUP BY store, retailer, brand, hour, currency""",
    """CREATE VIEW reviews AS
       SELECT e.store, s.retailer, s.brand, local_time(e.t_ns, s.timezone)::DATE AS day,
              count(*) FILTER (WHERE e.kind LIKE 'receipt %') AS receipts,
              count(*) FILTER (WHERE e.kind = 'receipt review') AS reviews,
              round(count(*) FILTER (WHERE e.kind = 'receipt review')::NUMERIC
                    / nullif(count(*) FILTER (WHERE e.kind LIKE 'receipt %'), 0), 4) AS review_rate,
              count(*) FILTER (WHERE e.kind = 'decision accept') AS accepted,
              count(*) FILTER (WHERE e.kind = 'decision correct') AS corrected,
              count(*) FILTER (WHERE e.kind = 'decision waive') AS waived
       FROM entry e JOIN store s ON s.id = e.store
       WHERE e.kind IN ('receipt settled', 'receipt review', 'decision accept', 'decision correct', 'decision waive')
       GROUP BY e.store, s.retailer, s.brand, day""",
    # A receipt's details are canonical JSON, in which no text can hold an unescaped quote, so that a pattern finds the
    # total. (Parsing it as JSON would fail on text with a zero character, which PostgreSQL cannot hold.)
    """CREATE VIEW shrink AS
       WITH last_word AS (
         SELECT DISTINCT ON (store, visit) store, visit, kind FROM entry
         WHERE kind IN ('decision accept', 'decision correct', 'decision waive') ORDER BY store, visit, seq DESC
       ), owing AS (
         SELECT e.store, e.visit, sum(p.amount) AS amount
         FROM posting p JOIN entry e ON e.store = p.store AND e.seq = p.entry
         WHERE p.account = 'receivable' GROUP BY e.store, e.visit HAVING sum(p.amount) > 0
       )
       SELECT r.store, s.retailer, s.brand, local_time(r.t_ns, s.timezone)::DATE AS day, s.currency,
              count(*) FILTER (WHERE d.kind = 'decision waive') AS waived_visits,
              coalesce(sum(substring(r.details FROM '"total":([0-9]+)\\},"vat"')::BIGINT)
                FILTER (WHERE d.kind = 'decision waive'), 0) AS waived,
              count(o.visit) AS owing_visits, coalesce(sum(o.amount), 0) AS owing
       FROM entry r JOIN store s ON s.id = r.store
         LEFT JOIN last_word d ON d.store = r.store AND d.visit = r.visit
         LEFT JOIN owing o ON o.store = r.store AND o.visit = r.visit
       WHERE r.kind IN ('receipt settled', 'receipt review') AND (d.kind = 'decision waive' OR o.visit IS NOT NULL)
       GROUP BY r.store, s.retailer, s.brand, day, s.currency""",
    """CREATE VIEW lost_goods AS
       SELECT g.store, s.retailer, s.brand, local_time(g.t_ns, s.timezone)::DATE AS day, g.gtin,
              sum(CASE WHEN g.debit = 'unknown' THEN g.quantity ELSE -g.quantity END) AS pieces
       FROM goods g JOIN store s ON s.id = g.store WHERE g.debit = 'unknown' OR g.credit = 'unknown'
       GROUP BY g.store, s.retailer, s.brand, day, g.gtin""",
    """CREATE VIEW sensor_health AS
       SELECT h.store, s.retailer, s.brand, local_time(h.t_ns, s.timezone)::DATE AS day, h.kind, h.subject,
              count(*) AS warnings, local_time(min(h.t_ns), s.timezone) AS first,
              local_time(max(h.t_ns), s.timezone) AS last
       FROM health h JOIN store s ON s.id = h.store
       GROUP BY h.store, s.retailer, s.brand, s.timezone, day, h.kind, h.subject""",
    """CREATE VIEW sensor_now AS
       SELECT DISTINCT ON (h.store, h.subject) h.store, s.retailer, s.brand, h.subject, h.kind, h.message,
              local_time(h.t_ns, s.timezone) AS since
       FROM health h JOIN store s ON s.id = h.store ORDER BY h.store, h.subject, h.t_ns DESC, h.seq DESC""",
)

SCHEMA: tuple[str, ...] = (*_TABLES, *_VIEWS)


class FunctionText(NamedTuple):
    """Language and text of a function in the database."""

    language: str
    text: str


def statements(*kinds: str) -> list[str]:
    """The statements that create objects of some kinds, such as "TABLE" and "VIEW"."""
    return [statement for statement in SCHEMA if statement.split()[:2] in [["CREATE", kind] for kind in kinds]]


def functions() -> dict[str, FunctionText]:
    """The functions of the schema by name."""
    found = {}
    for statement in statements("FUNCTION"):
        head, text, _ = statement.split("$$")
        words = head.split()
        found[words[2].partition("(")[0]] = FunctionText(words[words.index("LANGUAGE") + 1], text)
    return found


def function_faults(held: Mapping[str, list[FunctionText]]) -> list[str]:
    """How the functions of a database, by name, differ from those of the schema."""
    # A second function under the same name is a fault too.
    return [
        f"function {name}: want its own text, got {'another' if name in held else 'none'}"
        for name, text in functions().items()
        if held.get(name) != [text]
    ]


def definition_faults(wanted: Mapping[Definition, str], held: Mapping[Definition, str]) -> list[str]:
    """How the views, triggers and keys of a database differ from those of newly created tables."""
    missing = sorted(name for kind, name in wanted.keys() - held.keys() if kind == "trigger")
    faults = [f"want the triggers {missing}, got none"] if missing else []
    for (kind, name), definition in wanted.items():
        got = held.get(Definition(kind, name))
        if got == definition or (got is None and kind == "trigger"):
            continue
        if kind == "view":
            faults.append(f"view {name}: want its own text, got {'none' if got is None else 'another'}")
        else:
            faults.append(f"{kind} {name}: want {definition}, got {'none' if got is None else got}")
    return faults


def definitions(connection: Any, schema: str) -> dict[Definition, str]:
    """Views, enabled triggers and primary keys of a schema.

    Args:
        connection: of psycopg.
        schema: an SQL expression for its oid.
    """
    rows = connection.execute(
        f"""SELECT 'view', relname, pg_get_viewdef(oid) FROM pg_class
           WHERE relnamespace = {schema} AND relkind = 'v'
           UNION ALL
           SELECT 'trigger', tgname, pg_get_triggerdef(t.oid, true)
           FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
           WHERE relnamespace = {schema} AND NOT tgisinternal AND tgenabled IN ('O', 'A')
           UNION ALL
           SELECT 'key of', relname, pg_get_constraintdef(k.oid)
           FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
           WHERE relnamespace = {schema} AND contype = 'p'"""
    )
    return {Definition(kind, name): definition for kind, name, definition in rows}


def schema_faults(connection: Any) -> list[str]:
    """How the functions, views, triggers and keys of the chain's book differ from those of newly created tables.

    Creates temporary tables inside the connection's transaction and rolls them back; the server must be writable.
    """
    rows = connection.execute(
        "SELECT p.proname, l.lanname, p.prosrc FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
        "WHERE p.pronamespace = 'chain'::regnamespace"
    ).fetchall()
    held: dict[str, list[FunctionText]] = {}
    for name, language, text in rows:
        held.setdefault(name, []).append(FunctionText(language, text))
    faults = function_faults(held)
    if faults:  # the temporary tables would need these functions
        return faults
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL search_path = pg_temp, chain")
        for statement in statements("TABLE", "TRIGGER", "VIEW"):
            connection.execute(statement)
        wanted = definitions(connection, "pg_my_temp_schema()")
        # Definitions qualify a name unless the search path finds it first.
        connection.execute("SET LOCAL search_path = chain, pg_temp")
        return definition_faults(wanted, definitions(connection, "'chain'::regnamespace"))
