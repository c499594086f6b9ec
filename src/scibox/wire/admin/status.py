"""What `GET /admin/v1/status` and `POST /admin/v1/reload` answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct


class Broken(Struct):
    """A part that does not work as it should: what is wrong, and what to do next."""

    part: str
    message: str
    since: Annotated[str, Meta(description="RFC 3339, in UTC.")] | None = None


class ModelStatus(Struct):
    """A model, whether one of its engines or upstreams can answer, and how busy they are."""

    name: str
    can_answer: bool
    slots: int
    running: int
    waiting: int


class Status(Struct):
    """`ok`, `degraded` (something is broken, calls are answered) or `not_ready` (`hurdles` say why)."""

    status: Literal["ok", "degraded", "not_ready"]
    hurdles: list[str]
    broken: list[Broken]
    version: str
    uptime_s: float
    calls_in_flight: int
    models: list[ModelStatus]
    object: Literal["status"] = "status"


class Reloaded(Struct):
    """What a reload has changed: settings by dotted name, models by name."""

    settings: list[str]
    models_added: list[str]
    models_changed: list[str]
    models_removed: list[str]
    object: Literal["reload"] = "reload"


def render(answer: Status | Reloaded) -> bytes:
    """As JSON."""
    return msgspec.json.encode(answer)


def iso(at: float | None) -> str | None:
    """Unix seconds as RFC 3339."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
