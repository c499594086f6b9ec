"""The ledger's tables in a new database of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import servers

from scibox.store.entries import LEDGER, EntryStore
from scibox.store.sql import Sql


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server for all tests of the ledger."""
    with servers.postgres() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/ledger.db"
    return servers.new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def sql(place: str) -> Iterator[Sql]:
    made = Sql(place, LEDGER)
    yield made
    made.close()


@pytest.fixture
def store(sql: Sql) -> EntryStore:
    return EntryStore(sql)
