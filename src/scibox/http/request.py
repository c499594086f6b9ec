"""What a request brings: the secret in its headers, the body behind them; and whether its client is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Receive, Scope

from scibox.core.errors import BodyTooLarge, InvalidRequest, SciBoxError, UnsupportedMedia

from .incoming import Incoming
from .marks import Fields, fields_of

T = TypeVar("T")

PATIENCE = b"x-scibox-patience"
# What the clients' own timeouts are called: openai for Python, then Stainless's others (openai for Node.js,
# whose whole seconds are cut off, and anthropic). Seconds until the client gives up.
_TIMEOUTS = (b"x-stainless-read-timeout", b"x-stainless-timeout")
MOST_PATIENCE_S = 7 * 86_400.0
_BOM = b"\xef\xbb\xbf"
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class ClientGone(Exception):
    """The client closed the connection before its request was whole, or before it was answered."""


def secret(fields: Fields) -> str:
    """The secret of the `Authorization` header (RFC 6750, 2.1), or of Anthropic's `x-api-key`; else empty."""
    told = fields.get(b"authorization")
    if told is not None:
        scheme, _, found = told.decode("latin-1").partition(" ")
        return found.strip() if scheme.lower() == "bearer" else ""
    return fields.get(b"x-api-key", b"").decode("latin-1").strip()


def bearer(scope: Scope) -> str:
    """The secret of an ASGI request."""
    return secret(fields_of(scope["headers"]))


def header(fields: Fields, name: bytes) -> str:
    """A header by its lower-case name; empty where it is missing."""
    return fields.get(name, b"").decode("latin-1")


def patience_s(fields: Fields) -> float | None:
    """How long this call may wait for its turn, as its caller says it; None where it does not.

    Of a client's timeout a tenth is left for the answer itself, half a second at least.
    """
    if told := header(fields, PATIENCE):
        seconds = _seconds(told)
        if seconds is None:
            raise InvalidRequest(
                f"The header '{PATIENCE.decode()}' is '{told[:80]}'; send the seconds that the call may "
                "wait, as a number of at least 0.",
                param=PATIENCE.decode(),
            )
        return min(seconds, MOST_PATIENCE_S)
    for name in _TIMEOUTS:
        if name in fields and (seconds := _seconds(header(fields, name))) is not None:
            margin_s = min(max(0.5, seconds / 10), 30.0)
            return min(max(seconds - margin_s, 0.5), MOST_PATIENCE_S)
    return None


def _seconds(told: str) -> float | None:
    try:
        seconds = float(told)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body, or `BodyTooLarge` as soon as that is known."""
    fields = fields_of(scope["headers"])
    refuse_packed(fields)
    _refuse_long(fields, limit_bytes)
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return b"".join(pieces)


def refuse_packed(fields: Fields) -> None:
    """A packed body of a megabyte may hold a gigabyte, and no client of the API packs."""
    if b"content-encoding" in fields and header(fields, b"content-encoding").strip().lower() not in {
        "",
        "identity",
    }:
        raise UnsupportedMedia("Packed bodies are not read: send it without Content-Encoding.", param="body")


async def read_json(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The body of an API whose bodies are JSON, whatever its Content-Type says: `curl -d` says form data."""
    return _as_json(fields_of(scope["headers"]), await read_body(scope, receive, limit_bytes))


async def read_call(incoming: Incoming, limit_bytes: int) -> bytes:
    """The same of a request that asks a model."""
    fields = incoming.headers
    refuse_packed(fields)
    _refuse_long(fields, limit_bytes)
    body = await incoming.read(limit_bytes)
    if body is None:
        raise _too_large(limit_bytes)
    return _as_json(fields, body)


def explain(fields: Fields, error: SciBoxError) -> SciBoxError:
    """The error, with a word on the Content-Type where that may be why a body is not JSON."""
    kind = header(fields, b"content-type").partition(";")[0].strip().lower()
    if error.code != "invalid_json" or not kind or kind == "application/json" or kind.endswith("+json"):
        return error
    message = f"{error.message} Send JSON with 'Content-Type: application/json', not '{kind[:80]}'."
    return InvalidRequest(message, param=error.param, code=error.code)


async def while_wanted(receive: Receive, ending: asyncio.Event, answer: Coroutine[None, None, T]) -> T:
    """The answer; when the client leaves or the service ends first, it is cancelled, and `ClientGone`."""
    work: asyncio.Task[T] = asyncio.create_task(answer)
    ends = [asyncio.create_task(_gone(receive)), asyncio.create_task(ending.wait())]
    try:
        await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in [work, *ends]:
            task.cancel()
        await asyncio.gather(work, *ends, return_exceptions=True)
    if work.cancelled():
        raise ClientGone
    return work.result()


def _refuse_long(fields: Fields, limit_bytes: int) -> None:
    if int(fields.get(b"content-length", 0)) > limit_bytes:
        raise _too_large(limit_bytes)


def _as_json(fields: Fields, body: bytes) -> bytes:
    if not body.isascii():
        charset = _charset(header(fields, b"content-type"))
        if charset not in _UTF_8:
            raise UnsupportedMedia(
                f"The body is in {charset[:40]}; send UTF-8 (RFC 8259, 8.1).", param="body"
            )
        return body.removeprefix(_BOM)
    return body


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return "utf-8"


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limit_bytes} bytes; send it in several calls.", param="body"
    )


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
