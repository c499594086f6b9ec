"""Why a replica could not answer, in words for the operator: what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from scibox.core.errors import (
    SciBoxError,
    UpstreamBroken,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
)

AWAY = "It cannot be reached: check that it runs and that its url is right."


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, and since when (Unix seconds)."""

    words: str
    since: float


def words_on(error: SciBoxError) -> str:
    """What an attempt that failed so says of its replica."""
    match error:
        case UpstreamMisconfigured():
            return "It refuses the gateway: check its url, upstream_model and upstream_key_env."
        case UpstreamUnavailable(code="upstream_busy"):
            return "It says that it is busy: give it fewer slots here, or more replicas."
        case UpstreamUnavailable():
            return AWAY
        case UpstreamTimeout():
            return "It took longer than a deadline allows: look at its load and at [deadlines]."
        case UpstreamBroken():
            return f"Its last answer was broken: look at its own log. {error.message}"
        case _:
            return error.message


def resting(faults: Collection[str]) -> SciBoxError:
    """What a call is told that no replica takes, by what they have failed with."""
    if "upstream_busy" in faults:
        return UpstreamUnavailable(
            "The model's servers are busy; try again.", code="upstream_busy", retry_after_s=2
        )
    if faults and all(fault == UpstreamMisconfigured.code for fault in faults):
        return UpstreamMisconfigured(
            "The model's servers refuse the gateway; tell the operator to check its upstream keys and names.",
            retry_after_s=30,
        )
    if faults:
        return UpstreamUnavailable(
            "The model's servers could not answer a moment ago and are left alone until they may be back; "
            "try again.",
            retry_after_s=2,
        )
    return UpstreamUnavailable(
        "This model has no server that takes calls; tell the operator.", retry_after_s=30
    )


def refused(status: int) -> str:
    """Of a server that refuses the gateway itself."""
    return f"It refuses the gateway (status {status}): check upstream_key_env or upstream_key_file."
