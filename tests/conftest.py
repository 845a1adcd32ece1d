"""What several test modules need: the public recordings, and a small simulated store."""

from __future__ import annotations

import importlib.util
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fusion.money.ledger import Ledger
from fusion.store.models import Store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _faults_end_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store survives a fault of this program; a test does not."""
    monkeypatch.setattr("fusion.engine.FAULTS", ())


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    """Compile the kernels of Numba before the first test, of two workers half of them each: they share the cache."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return
    from fusion._kernels import association, health, presence
    from fusion.goods.plates import Plates
    from fusion.simulation import demo_store

    parts = [health.warm_up, presence.warm_up, lambda: Plates(demo_store(2, 2)), association.warm_up]
    for part in parts if worker[-1] in "02468" else reversed(parts):
        part()


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the public recordings; tests that need them are skipped where it is absent."""
    folder = Path(os.environ.get("FUSION_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public recordings at {folder}; set FUSION_DATA")
    return folder


@pytest.fixture(scope="session")
def scorer(data: Path) -> Callable[[str], ModuleType]:
    """Loads a scorer that is independent of the project, by name; skips the test where there is none."""

    def load(name: str) -> ModuleType:
        path = data.parent / "tools" / f"{name}.py"
        if not path.exists():
            pytest.skip(f"no scorer at {path}")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load



@pytest.fixture(scope="session")
def small_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated minute of two shoppers in a shop of six cameras and 24 plates, with truth."""
    from fusion.simulation import Scenario, Simulation, demo_store

    folder = tmp_path_factory.mktemp("recordings") / "small"
    store = demo_store(n_cameras=6, n_plates=24)
    Simulation(store, Scenario(seed=11, minutes=1.0, shoppers=2)).write(folder)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server whose superuser we are: that of FUSION_POSTGRES, else one started for the tests."""
    url = os.environ.get("FUSION_POSTGRES")
    if url:
        yield url
        return
    pgserver = pytest.importorskip("pgserver", reason="no PostgreSQL: set FUSION_POSTGRES or install pgserver")
    # Not in a folder of pytest's: where we are root, the server is another user, and the next pytest that starts on
    # this machine takes every other user's rights to those folders away.
    with tempfile.TemporaryDirectory(prefix="fusion-postgres-") as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        url = server.get_uri()
        _spare_the_disk(url)
        yield url
        server.cleanup()


def _spare_the_disk(url: str) -> None:
    """No test takes this machine's power away, which is all that waiting for the disk protects a server from."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


@dataclass
class Place:
    """Where a test keeps a store's books: the same behaviour is asked of every kind.

    Attributes:
        folder: holds every file that the store itself keeps.
        database: URL of the test's own PostgreSQL database; None for SQLite.
    """

    folder: Path
    database: str | None = None

    def open(self, store: Store) -> Ledger:
        if self.database is None:
            return Ledger.open(self.folder / "ledger.sqlite", store)
        return Ledger.open(self.database, store, vault=self.folder / "vault.sqlite")

    def stranger(self, store: Store) -> Any:
        """A connection that goes round the ledger; its `execute` commits at once."""
        import sqlite3

        if self.database is None:
            return sqlite3.connect(self.folder / "ledger.sqlite", isolation_level=None)
        import psycopg

        from fusion.money.postgres import schema_of

        connection = psycopg.connect(self.database, autocommit=True)
        connection.execute(f"SET search_path = {schema_of(store.id)}")
        return connection


@pytest.fixture(params=["sqlite", "postgres"])
def new_place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Place]]:
    """Makes unused places for books."""
    if request.param == "sqlite":
        yield lambda: Place(tmp_path_factory.mktemp("books"))
        return
    import psycopg

    url = request.getfixturevalue("postgres")
    made: list[str] = []

    def make() -> Place:
        name = f"test_{secrets.token_hex(8)}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        made.append(name)
        base, _, options = url.partition("?")
        database = base.rsplit("/", 1)[0] + f"/{name}" + (f"?{options}" if options else "")
        return Place(tmp_path_factory.mktemp("books"), database)

    yield make
    with psycopg.connect(url, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def next_place(
    new_place: Callable[[], Place], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Place]:
    """Makes an unused place instead of the one before, whose books are closed: quicker than a database for each."""
    first = new_place()
    if first.database is None:
        return new_place
    import psycopg
    from psycopg import sql

    database = first.database

    def make() -> Place:
        with psycopg.connect(database, autocommit=True) as connection:
            found = connection.execute(
                "SELECT nspname FROM pg_namespace"
                " WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public')"
            )
            for (name,) in found.fetchall():
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
        return Place(tmp_path_factory.mktemp("books"), database)

    return make


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The one browser of all tests that only look; they take it as `driver`."""
    from browsing import CHROMEDRIVER, CHROMIUM, browsing

    if CHROMIUM is None or CHROMEDRIVER is None:
        pytest.skip("no Chromium with chromedriver on this machine")
    with browsing(1440) as driver:
        yield driver


@pytest.fixture
def driver(browser: Any) -> Any:
    """The browser on an empty page, without what it noted or was set to for pages that were open before."""
    from browsing import complaints, requested

    browser.implicitly_wait(0)
    browser.get("about:blank")
    requested(browser), complaints(browser)
    return browser
