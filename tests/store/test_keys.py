"""What is particular to keys in an SQLite file; what holds for every database is in tests/contract/test_stores.py."""

import sqlite3
import stat
from pathlib import Path

import pytest

from scibox.core import secret as secrets
from scibox.service import admin
from scibox.store.keys import KeyStore
from scibox.store.sql import DatabaseAway, NewerSchema


def store_in(folder: Path) -> KeyStore:
    return KeyStore(f"sqlite://{folder}/keys.db", patience_s=0.5)


def test_the_secret_is_nowhere_in_the_files(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        _, secret = admin.create_key(store, owner="o", name="n", now=5.0)
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert secret.encode() not in files
    assert secret.removeprefix(secrets.PREFIX)[:20].encode() not in files
    assert secrets.digest(secret).encode() in files  # and the look was at the right place


def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    with store_in(tmp_path / "deep") as store:
        store.all()

    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep" / "keys.db").stat().st_mode) == 0o600


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        store.all()
    db = sqlite3.connect(tmp_path / "keys.db")
    db.execute("PRAGMA user_version = 99")
    db.close()

    with store_in(tmp_path) as store, pytest.raises(NewerSchema, match="upgrade SciBox"):
        store.all()


def test_a_place_where_no_keys_can_be_kept_is_a_database_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "keys.db").write_bytes(b"no database at all" * 100)
    (tmp_path / "folder" / "keys.db").mkdir(parents=True)

    for folder in ("file", "torn", "folder"):
        with store_in(tmp_path / folder) as store, pytest.raises(DatabaseAway):
            store.all()


def test_a_row_that_somebody_has_damaged_is_a_database_that_is_away(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        admin.create_key(store, owner="o", name="n", now=5.0)
        for damage in (
            "limits = '{'",
            'limits = \'{"calls_per_second": "many"}\'',
            "role = 'king'",
            "expires_at = 'x'",
        ):
            db = sqlite3.connect(tmp_path / "keys.db")
            db.execute(f"UPDATE keys SET {damage}")
            db.commit()
            db.close()
            with pytest.raises(DatabaseAway, match="cannot be read"):
                store.load()


def test_a_file_put_in_its_place_is_seen(tmp_path: Path) -> None:
    with store_in(tmp_path) as store, store_in(tmp_path / "backup") as backup:
        admin.create_key(store, owner="o", name="n", now=5.0)
        key, _ = admin.create_key(backup, owner="p", name="n", now=5.0)
        backup.close()
        for suffix in ("-wal", "-shm"):  # or SQLite would apply what belongs to the file before
            (tmp_path / f"keys.db{suffix}").unlink()
        (tmp_path / "backup" / "keys.db").replace(tmp_path / "keys.db")

        assert store.all() == [key]
