"""What operators change of the replicas is kept, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from scibox.store.keys import TABLES, KeyStore
from scibox.store.replicas import Kept, ReplicaStore
from scibox.store.sql import Sql, Tables

ADDED = Kept("rep_b", "m", 1, '{"url":"http://gpu1:8000/v1"}', created_at=2.0)


@pytest.fixture
def store(place: str) -> Iterator[ReplicaStore]:
    with closing(ReplicaStore(place)) as store:
        yield store


def test_what_is_put_comes_back_in_order_and_is_forgotten(store: ReplicaStore) -> None:
    store.put(ADDED)
    store.put(Kept("rep_a", "m", 0, "{}", created_at=3.0))
    store.put(ADDED)

    assert [one.id for one in store.all()] == ["rep_b", "rep_a"]
    assert store.all()[0] == ADDED
    store.forget("rep_b")
    store.forget("rep_b")
    assert [one.id for one in store.all()] == ["rep_a"]


def test_draining_is_kept_and_of_one_of_the_file_only_that(store: ReplicaStore) -> None:
    store.put(ADDED)
    store.drain("rep_b", True, 9.0)
    store.drain("rep_file", True, 9.0)
    drained = {one.id: (one.is_draining, one.is_added) for one in store.all()}
    assert drained == {"rep_b": (True, True), "rep_file": (True, False)}
    store.drain("rep_b", False, 9.0)
    store.drain("rep_file", False, 9.0)
    assert store.all() == [ADDED]


def test_a_database_of_before_gets_the_table(place: str) -> None:
    older = Tables(TABLES.name, TABLES.migrations[:2])
    with closing(Sql(place, older)) as sql, sql.reading() as db:
        assert db.rows("SELECT name FROM owners") == []
    with closing(ReplicaStore(place)) as store:
        store.put(ADDED)
        assert store.all() == [ADDED]
    with KeyStore(place) as keys:
        assert keys.all() == []
