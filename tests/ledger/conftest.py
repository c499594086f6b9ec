"""The ledger's tables in a new database of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scibox.store.entries import LEDGER, EntryStore
from scibox.store.sql import Sql


@pytest.fixture
def sql(place: str) -> Iterator[Sql]:
    made = Sql(place, LEDGER)
    yield made
    made.close()


@pytest.fixture
def store(sql: Sql) -> EntryStore:
    return EntryStore(sql)
