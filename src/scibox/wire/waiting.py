"""What a client is told of its limits and of its turn: headers, comments in a stream, `GET /v1/queue`.

The names and the form of the `x-ratelimit-*` headers are OpenAI's (API reference, "Rate limits in headers").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from scibox.core.admission import Allowance, Grant, Place

Headers = list[tuple[bytes, bytes]]

_Names = tuple[bytes, bytes, bytes]


def _names(what: str) -> _Names:
    limit, remaining, reset = (
        f"x-ratelimit-{told}-{what}".encode() for told in ("limit", "remaining", "reset")
    )
    return limit, remaining, reset


_REQUESTS = _names("requests")
# Which limits a header is about: of those that hold for a call, it shows the one that binds most.
_NAMED: Mapping[str, _Names] = {
    "calls_per_second": _REQUESTS,
    "calls_per_minute": _REQUESTS,
    "tokens_per_minute": _names("tokens"),
    "texts_per_minute": _names("texts"),
    "calls_in_flight": _names("in-flight"),
    "tokens_per_day": _names("tokens-day"),
    "tokens_per_month": _names("tokens-month"),
}


class QueuedCall(Struct):
    """A call that waits for its turn or runs. Position 1 is next; times are seconds."""

    id: str  # the x-request-id of its answer
    model: str
    status: Literal["waiting", "running"]
    position: int
    eta_s: float  # how long it will probably still wait
    waited_s: float
    ran_s: float
    object: Literal["queue.call"] = "queue.call"


class QueueList(Struct):
    """The calls of the key's owner, those that run first, then by position."""

    data: list[QueuedCall]
    object: Literal["list"] = "list"


def render_queue(places: Sequence[Place]) -> bytes:
    """The body of `GET /v1/queue`."""
    calls = [
        QueuedCall(
            place.call_id,
            place.model,
            "waiting" if place.position else "running",
            place.position,
            round(place.eta_s, 3),
            round(place.waited_s, 3),
            round(place.ran_s, 3),
        )
        for place in sorted(places, key=lambda place: (place.position, -place.waited_s))
    ]
    return msgspec.json.encode(QueueList(calls))


def limit_headers(allowances: Iterable[Allowance]) -> Headers:
    """`x-ratelimit-limit-*`, `-remaining-*` and `-reset-*`; none of a kind that is not limited."""
    binding: dict[_Names, Allowance] = {}
    for allowance in allowances:
        names = _NAMED[allowance.limit]
        other = binding.get(names)
        if other is None or _slack(allowance) < _slack(other):
            binding[names] = allowance
    headers: Headers = []
    for (limit, remaining, reset), allowance in binding.items():
        headers += (
            (limit, b"%d" % allowance.amount),
            (remaining, b"%d" % max(0, allowance.remaining)),
            (reset, duration(allowance.reset_s).encode()),
        )
    return headers


def _slack(allowance: Allowance) -> tuple[int, float]:
    """What binds more comes first: fewer that remain, then the longer wait for all of it."""
    return allowance.remaining, -allowance.reset_s


def granted_headers(grant: Grant) -> Headers:
    """Of an answer whose call has started."""
    return [
        *limit_headers(grant.allowances),
        *_queue_headers(grant.position, grant.waited_s, grant.expected_s),
    ]


def placed_headers(place: Place) -> Headers:
    """Of a stream that begins while its call still waits."""
    return [
        *limit_headers(place.allowances),
        *_queue_headers(place.came_at, place.waited_s, place.expected_s),
    ]


def _queue_headers(position: int, waited_s: float, expected_s: float) -> Headers:
    return [
        (b"x-scibox-queue-position", b"%d" % position),
        (b"x-scibox-queue-wait-ms", b"%d" % round(waited_s * 1000)),
        (b"x-scibox-queue-expected-ms", b"%d" % round(expected_s * 1000)),
    ]


def comment(place: Place) -> bytes:
    """Where a call stands, as a comment in its stream: clients skip it, people and logs see it."""
    return b": queued position=%d eta=%.1fs\n\n" % (place.position, place.eta_s)


def duration(seconds: float) -> str:
    """`12ms`, `1s`, `6m0s`: as OpenAI writes it, and Go."""
    ms = round(seconds * 1000)
    if ms <= 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    whole, rest_ms = divmod(ms, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f".{rest_ms:03d}".rstrip("0") if rest_ms else ""
    told = f"{whole}{tail}s"
    if hours or minutes:
        told = f"{minutes}m{told}"
    return f"{hours}h{told}" if hours else told
