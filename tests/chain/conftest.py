"""Databases for the chain's book, and a Ray cluster."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[str]:
    """URL of a database that only the tests of one module use."""
    import psycopg

    name = f"chain_{secrets.token_hex(8)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    base, _, options = postgres.partition("?")
    yield base.rsplit("/", 1)[0] + f"/{name}" + (f"?{options}" if options else "")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def url(database: str) -> str:
    """URL of a database without a chain's book."""
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS chain CASCADE")
    return database


@pytest.fixture
def stranger(url: str) -> Iterator[Any]:
    """A connection that bypasses the book; its statements are committed at once."""
    import psycopg

    with psycopg.connect(url, autocommit=True, options="-c search_path=chain") as connection:
        yield connection


@pytest.fixture
def shop(tmp_path: Path, url: str) -> Iterator[Any]:
    """A store that ships to that database."""
    from chain.shops import Shop

    shop = Shop(tmp_path, url)
    yield shop
    shop.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """One Ray cluster for all tests."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("no Ray: pip install 'storefusion[ray]'")
    from fusion.chain.executors import connect

    ray = connect(2, "local")
    yield "local"
    ray.shutdown()


@pytest.fixture(params=["processes", "ray"])
def where(request: pytest.FixtureRequest) -> str | None:
    """Where tasks run, as `map_tasks` takes it."""
    return None if request.param == "processes" else str(request.getfixturevalue("ray_cluster"))
