"""Which settings a running service can take over, and what to say where it cannot."""

from __future__ import annotations

from scibox.config.records import Config, ConfigError, Problem
from scibox.config.settings import settings

# Sockets that are bound, files that are open, processes that are there: they live as long as the service.
AT_START_ONLY = (
    "data",
    "server.host",
    "server.port",
    "server.workers",
    "embeddings.cache_disk_bytes",
    "shared.database_url",
    "shared.limits_url",
)


def refuse_restarts(old: Config, new: Config) -> None:
    """Raise ConfigError naming every setting that has changed and cannot without a restart."""
    problems = [
        Problem(str(new.source or "configuration"), _sentence(name, value(old, name)))
        for name in AT_START_ONLY
        if value(old, name) != value(new, name)
    ]
    if (old.server.tls_certificate is None) != (new.server.tls_certificate is None):
        was = "off" if old.server.tls_certificate is None else "on"
        problems.append(Problem(str(new.source or "configuration"), _sentence("TLS", was)))
    if problems:
        raise ConfigError(tuple(problems))


def value(config: Config, name: str) -> object:
    """A setting by its dotted name."""
    item = settings()[name]
    section = item.section.rpartition(".")[2]
    return getattr(getattr(config, section) if section else config, item.field)


def _sentence(name: str, was: object) -> str:
    hidden = "another one" if name.endswith("_url") else was  # a URL may hold a password
    return (
        f"{name} cannot change while the service runs (it started with {hidden}): "
        "restart the service, or put the old value back"
    )
