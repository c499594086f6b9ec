import sqlite3
import stat
from pathlib import Path

import pytest

from scibox.core import secret as secrets
from scibox.core.errors import OperatorError
from scibox.service import admin
from scibox.store.database import NewerSchema
from scibox.store.keys import KeyStore


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db") as store:
        key, secret = admin.create_key(store, owner="o", name="n", now=5.0, days=2, models=["b", "a"])

        assert store.all() == [key]
        assert store.by_digest() == {secrets.digest(secret): key}
    assert key.expires_at == 5.0 + 2 * 86_400
    assert key.models == frozenset({"a", "b"})
    assert secret.endswith(key.last_four)


def test_the_secret_is_nowhere_in_the_files(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db") as store:
        _, secret = admin.create_key(store, owner="o", name="n", now=5.0)
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert secret.encode() not in files
    assert secret.removeprefix(secrets.PREFIX)[:20].encode() not in files
    assert secrets.digest(secret).encode() in files  # and the look was at the right place


def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "deep" / "keys.db"):
        pass

    assert stat.S_IMODE((tmp_path / "deep" / "keys.db").stat().st_mode) == 0o600


def test_a_revoked_key_stays_revoked_at_its_first_time(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db") as store:
        key, _ = admin.create_key(store, owner="o", name="n", now=5.0)

        assert store.revoke(key.key_id, 7.0) == store.revoke(key.key_id, 9.0)
        assert store.all()[0].revoked_at == 7.0
        assert store.revoke("key_none", 9.0) is None


def test_the_operator_is_made_once(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db") as store:
        assert admin.ensure_operator(store, 1.0) is not None
        assert admin.ensure_operator(store, 2.0) is None
        assert [key.role for key in store.all()] == ["operator"]


def test_the_version_changes_with_another_writer(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db") as reader, KeyStore(tmp_path / "keys.db") as writer:
        before = reader.version()
        assert reader.version() == before
        admin.create_key(writer, owner="o", name="n", now=5.0)

        assert reader.version() != before


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with KeyStore(tmp_path / "keys.db"):
        pass
    db = sqlite3.connect(tmp_path / "keys.db")
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(NewerSchema, match="upgrade SciBox"):
        KeyStore(tmp_path / "keys.db")


def test_a_place_where_no_keys_can_be_kept_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "torn.db").write_bytes(b"no database at all" * 100)
    (tmp_path / "folder.db").mkdir()

    for path in (tmp_path / "file" / "keys.db", tmp_path / "torn.db", tmp_path / "folder.db"):
        with pytest.raises(OperatorError, match=r"cannot be opened \(.+\): look to"):
            KeyStore(path)
