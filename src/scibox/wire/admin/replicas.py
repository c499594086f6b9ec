"""`/admin/v1/replicas`: what is asked and what is answered. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from scibox.core.errors import InvalidRequest
from scibox.core.types import Dialect
from scibox.wire.body import Strict

from .body import read

Name = Annotated[str, Meta(min_length=1, max_length=1_000)]
Slots = Annotated[int, Meta(ge=1, le=1_024)]
State = Literal["ready", "starting", "away", "draining", "leaving"]


class NewReplicaRequest(Strict, frozen=True, omit_defaults=True):
    """A replica to be added to a model: an upstream's `url`, or an `engine` with weights."""

    model: Annotated[Name, Meta(description="Honoured. The public name of the model that it serves.")]
    deployment: Annotated[
        Annotated[int, Meta(ge=0, le=1_000)],
        Meta(description="Honoured. Which deployment of the model it joins, counted from 0."),
    ] = 0
    url: Annotated[
        Name | UnsetType, Meta(description="Honoured. The upstream's address, as in the configuration.")
    ] = UNSET
    upstream_model: Annotated[
        Name | UnsetType, Meta(description="Honoured. The model's name there, where it has another.")
    ] = UNSET
    upstream_key_env: Annotated[
        Name | UnsetType,
        Meta(description="Honoured. Where its key is; one of those that the configuration names."),
    ] = UNSET
    upstream_key_file: Annotated[
        Name | UnsetType,
        Meta(description="Honoured. Where its key is; one of those that the configuration names."),
    ] = UNSET
    slots: Annotated[
        Slots | UnsetType, Meta(description="Honoured. Calls at the same time; else what it says.")
    ] = UNSET
    dialect: Annotated[
        Dialect | UnsetType, Meta(description="Honoured. What it understands; else what it says.")
    ] = UNSET
    engine: Annotated[
        Literal["llama", "embedder", "fake"] | UnsetType,
        Meta(description="Honoured. Instead of `url`: one more child of the service."),
    ] = UNSET
    weights: Annotated[
        Name | UnsetType, Meta(description="Honoured. Of an engine: a name of the catalogue, no path.")
    ] = UNSET


class ReplicaChangeRequest(Strict, frozen=True):
    """Whether it gets new calls."""

    draining: Annotated[bool, Meta(description="Honoured. `true`: no new calls, running ones finish.")]
    force: Annotated[
        bool, Meta(description="Honoured. Also where the model has no other replica that takes calls.")
    ] = False


class AdminReplica(Struct):
    """A replica. `leaving`: it was removed, and has calls left; `added`: by an operator, not in the file."""

    id: str
    model: str
    deployment: int | None
    url: str | None
    engine: str | None
    state: State
    added: bool
    in_flight: int
    slots: int | None
    context: int | None
    kind: str | None
    message: Annotated[str | None, Meta(description="What is wrong with it, and what to do.")]
    object: Literal["admin.replica"] = "admin.replica"


class AdminReplicaList(Struct):
    """All replicas, in the order of the models and of their deployments."""

    data: list[AdminReplica]
    object: Literal["list"] = "list"


class AdminReplicaRemoved(Struct):
    """A replica that gets no call any more; it is gone when those in flight have ended."""

    id: str
    in_flight: int
    deleted: Literal[True] = True
    object: Literal["admin.replica"] = "admin.replica"


_new = msgspec.json.Decoder(NewReplicaRequest)
_change = msgspec.json.Decoder(ReplicaChangeRequest)


def parse_new(raw: bytes) -> NewReplicaRequest:
    """A replica to be added."""
    return read(raw, _new, NewReplicaRequest)


def parse_change(raw: bytes) -> ReplicaChangeRequest:
    """What is to change."""
    return read(raw, _change, ReplicaChangeRequest)


def parse_remove(query: Mapping[str, str]) -> tuple[bool, bool]:
    """`now` and `force` of a removal."""
    for name in query:
        if name not in {"now", "force"}:
            raise InvalidRequest(
                f"Unknown parameter '{name[:80]}'. Known are: now, force.",
                param=name,
                code="unknown_parameter",
            )
    return _flag(query, "now"), _flag(query, "force")


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "false")
    if value not in {"true", "false"}:
        raise InvalidRequest(f"'{name}' is true or false, not '{value[:80]}'.", param=name)
    return value == "true"


def render(answer: AdminReplica | AdminReplicaList | AdminReplicaRemoved) -> bytes:
    """As JSON."""
    return msgspec.json.encode(answer)
