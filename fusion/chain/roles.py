"""Who may write which rows of the chain's book: a role of PostgreSQL for each store, kept to its rows by row security.

The owner of the tables runs the script once, and again for new stores. A store's role adds rows of that store and moves
its marks; it reads nothing of other stores, changes and deletes nothing, and registers no store: names, currencies and
retailers are the owner's. Readers, such as a dashboard's role, are members of `fusion_readers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fusion.chain.schema import STORE_COLUMNS
from fusion.errors import ConfigError
from fusion.money.retailers import Retailer
from fusion.store.models import Store

# PostgreSQL cuts longer names, so that two stores could share a role.
ROLE_MAX_BYTES = 63
WRITERS, READERS = "fusion_stores", "fusion_readers"
_WRITTEN = ("entry", "posting", "goods", "health", "mark")

_HEAD = f"""\
BEGIN;
SET LOCAL client_min_messages = warning;

-- What every store's role may do, before row security leaves it its own rows alone.
{{writers}}
{{readers}}
REVOKE ALL ON SCHEMA chain FROM PUBLIC;
GRANT USAGE ON SCHEMA chain TO {WRITERS}, {READERS};
GRANT SELECT ON chain.book, chain.store TO {WRITERS};
GRANT SELECT, INSERT ON chain.entry, chain.posting, chain.goods, chain.health TO {WRITERS};
GRANT SELECT, INSERT, UPDATE (seq, hash) ON chain.mark TO {WRITERS};

-- Which store a role writes for. A role cannot take on the identity of a session.
CREATE TABLE IF NOT EXISTS chain.writer (role NAME PRIMARY KEY, store TEXT NOT NULL);
CREATE OR REPLACE FUNCTION chain.own_store() RETURNS TEXT LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = chain, pg_temp AS $$ SELECT store FROM chain.writer WHERE role = session_user $$;
"""


def role_of(store: str) -> str:
    """The name of a store's role. Raises ConfigError where it would be too long."""
    role = f"fusion_{store}"
    if len(role.encode()) > ROLE_MAX_BYTES:
        raise ConfigError(f"store {store!r}: want an id of at most {ROLE_MAX_BYTES - 7} bytes to name its role by")
    return role


def roles_sql(stores: Iterable[tuple[Store, Retailer | None]]) -> str:
    """The script for the owner of the chain's book: roles, grants, row security and the stores' registrations.

    Running it again changes nothing, so it may be run whenever a store is added or renamed. Roles get no password.

    Raises:
        ConfigError: an id is too long to name a role by.
    """
    parts = [_HEAD.format(writers=_role(WRITERS, "NOLOGIN"), readers=_role(READERS, "NOLOGIN"))]
    for table in _WRITTEN:
        parts.append(_policies(table, "store", "ALL"))
    parts.append(_policies("store", "id", "SELECT"))
    parts.append(f"GRANT SELECT ON ALL TABLES IN SCHEMA chain TO {READERS};")
    parts.append(f"REVOKE ALL ON chain.writer FROM {READERS};")
    parts += [_store(store, retailer) for store, retailer in stores]
    return "\n".join((*parts, "COMMIT;", ""))


def _role(name: str, options: str) -> str:
    # CREATE ROLE has no IF NOT EXISTS. Two databases of a server share their roles.
    return (
        f"DO $do$ BEGIN CREATE ROLE {_name(name)} {options}; "
        "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $do$;"
    )


def _policies(table: str, column: str, command: str) -> str:
    own = f"{column} = (SELECT chain.own_store())"
    check = f" WITH CHECK ({own})" if command == "ALL" else ""
    return (
        f"ALTER TABLE chain.{table} ENABLE ROW LEVEL SECURITY;\n"
        f"DROP POLICY IF EXISTS own_rows ON chain.{table};\n"
        f"CREATE POLICY own_rows ON chain.{table} FOR {command} TO {WRITERS} USING ({own}){check};\n"
        f"DROP POLICY IF EXISTS all_rows ON chain.{table};\n"
        f"CREATE POLICY all_rows ON chain.{table} FOR SELECT TO {READERS} USING (true);"
    )


def _store(store: Store, retailer: Retailer | None) -> str:
    role = role_of(store.id)
    values: Sequence[str | None] = (
        store.id, store.name, store.currency, store.timezone,
        None if retailer is None else retailer.id, None if retailer is None else retailer.brand,
    )  # fmt: skip
    return "\n".join((
        "",
        _role(role, "LOGIN"),
        f"GRANT {WRITERS} TO {_name(role)};",
        f"INSERT INTO chain.writer VALUES ({_text(role)}, {_text(store.id)}) "
        "ON CONFLICT (role) DO UPDATE SET store = excluded.store;",
        f"INSERT INTO chain.store (id, {STORE_COLUMNS}) VALUES ({', '.join(map(_text, values))}) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, timezone = excluded.timezone, "
        "retailer = coalesce(excluded.retailer, chain.store.retailer), "
        "brand = coalesce(excluded.brand, chain.store.brand);",
    ))  # fmt: skip


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str | None) -> str:
    """A literal that no setting of the server reads otherwise."""
    if value is None:
        return "NULL"
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


# Whether the current role may write rows of every store: it owns the tables, bypasses row security, or there is none.
UNBOUNDED = """
SELECT current_user::text, r.rolsuper OR r.rolbypassrls OR NOT c.relrowsecurity
       OR pg_has_role(current_user, c.relowner, 'MEMBER')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_roles r
WHERE (n.nspname, c.relname) = ('chain', 'entry') AND r.rolname = current_user
"""

__all__ = ["READERS", "UNBOUNDED", "WRITERS", "role_of", "roles_sql"]
