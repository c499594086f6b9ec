"""The list of what has ended: appended by several, torn by crashes, never wrong."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scibox.store.revoked import Revoked, is_listable


def test_lines_of_several_writers_are_all_there_and_the_first_time_counts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "revoked"
    before = Revoked(path).stamp()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: Revoked(path).add({f"key_{n}": n, "key_all": 100 - n}), range(40)))

    assert Revoked(path).read() == {**{f"key_{n}": float(n) for n in range(40)}, "key_all": 61.0}
    assert Revoked(path).stamp() != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_wherever_a_write_is_torn_the_lines_around_it_count(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    revoked = Revoked(path)
    revoked.add({"key_1": 5.0})
    whole = path.read_bytes()
    for torn in [b"key_2 1700000000.125\n"[:cut] for cut in range(20)] + [b"\0" * 50]:
        path.write_bytes(whole + torn)
        revoked.add({"key_3": 7.5})
        ends = revoked.read()

        assert (ends.pop("key_1"), ends.pop("key_3")) == (5.0, 7.5)
        assert set(ends) <= {"key_2"}  # whose time was cut at most


def test_only_ids_and_digests_are_listed(tmp_path: Path) -> None:
    revoked = Revoked(tmp_path / "revoked")
    for subject in ("", "key 1", "key_1\n", "é", "k" * 101):
        assert not is_listable(subject)
        with pytest.raises(ValueError, match="no subject"):
            revoked.add({subject: 1.0})

    assert revoked.read() == {}
