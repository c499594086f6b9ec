"""Which settings a running service can take over, and what to say where it cannot."""

from __future__ import annotations

from dataclasses import dataclass

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
    "shared.limits_prefix",
    "gate.repeat_keep_s",
    "gate.repeat_bytes",
)


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two configurations: settings by dotted name, models by public name."""

    settings: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        """For the log."""
        groups = {
            "settings": self.settings,
            "models added": self.added,
            "models changed": self.changed,
            "models removed": self.removed,
        }
        told = [f"{what}: {', '.join(names)}" for what, names in groups.items() if names]
        return "; ".join(told) or "nothing has changed"


def changes(old: Config, new: Config) -> Changes:
    """What differs."""
    before = {model.name: model for model in old.models}
    after = {model.name: model for model in new.models}
    return Changes(
        settings=tuple(name for name in settings() if value(old, name) != value(new, name)),
        added=tuple(name for name in after if name not in before),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
        removed=tuple(name for name in before if name not in after),
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
