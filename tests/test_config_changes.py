"""Which settings a running service takes over, and which it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scibox.config import Config, ConfigError, Model, Server, changes, refuse_restarts
from scibox.config.changes import AT_START_ONLY
from scibox.config.records import Embeddings, Shared
from scibox.config.settings import settings

OLD = Config(Path("scibox.toml"), Path("/data"))


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("data", replace(OLD, data=Path("/other"))),
        ("server.host", replace(OLD, server=Server(host="0.0.0.0"))),
        ("server.port", replace(OLD, server=Server(port=5000))),
        ("server.workers", replace(OLD, server=Server(workers=2))),
        ("embeddings.cache_disk_bytes", replace(OLD, embeddings=Embeddings(cache_disk_bytes=0))),
        ("shared.database_url", replace(OLD, shared=Shared(database_url="postgresql://u:secret@h/d"))),
        ("shared.limits_url", replace(OLD, shared=Shared(limits_url="redis://h"))),
        ("TLS", replace(OLD, server=Server(tls_certificate=Path("c"), tls_key=Path("k")))),
    ],
)
def test_what_needs_a_restart_is_named(name: str, new: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_restarts(OLD, new)

    assert str(caught.value).startswith(f"scibox.toml: {name} cannot change while the service runs")
    assert "restart the service" in str(caught.value)


def test_every_one_of_them_is_named_and_no_password() -> None:
    old = replace(OLD, shared=Shared(database_url="postgresql://u:secret@h/d"))
    with pytest.raises(ConfigError) as caught:
        refuse_restarts(old, replace(OLD, server=Server(port=5000)))

    assert len(caught.value.problems) == 2
    assert "secret" not in str(caught.value)


def test_everything_else_may_change() -> None:
    server = Server(drain_s=1.0, heartbeat_s=1.0, max_body_bytes=2000, cors_origins=())
    refuse_restarts(OLD, replace(OLD, server=server, models=(Model("m", "chat"),)))


def test_they_are_settings() -> None:
    assert set(AT_START_ONLY) <= set(settings())


def test_what_has_changed_is_told() -> None:
    a, b, c = (Model(name, "chat") for name in "abc")
    old = replace(OLD, models=(a, b))
    new = replace(OLD, models=(replace(b, owned_by="us"), c), server=Server(drain_s=1.0))

    assert (
        str(changes(old, new))
        == "settings: server.drain_s; models added: c; models changed: b; models removed: a"
    )
    assert str(changes(old, old)) == "nothing has changed"
