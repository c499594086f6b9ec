"""What a request brings: the secret in its headers, the body behind them; and whether its client is there."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Receive, Scope

from scibox.core.errors import BodyTooLarge, InvalidRequest, SciBoxError, UnsupportedMedia

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


def bearer(scope: Scope) -> str:
    """The secret of the `Authorization` header (RFC 6750, 2.1), or of Anthropic's `x-api-key`; else empty."""
    found = ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, secret = value.decode("latin-1").partition(" ")
            return secret.strip() if scheme.lower() == "bearer" else ""
        if name == b"x-api-key":
            found = value.decode("latin-1").strip()
    return found


def header(scope: Scope, name: bytes) -> str:
    """The first value of a header by its lower-case name; empty where it is missing."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def patience_s(scope: Scope) -> float | None:
    """How long this call may wait for its turn, as its caller says it; None where it does not.

    Of a client's timeout a tenth is left for the answer itself, half a second at least.
    """
    told = header(scope, PATIENCE)
    if told:
        seconds = _seconds(told)
        if seconds is None:
            raise InvalidRequest(
                f"The header '{PATIENCE.decode()}' is '{told[:80]}'; send the seconds that the call may "
                "wait, as a number of at least 0.",
                param=PATIENCE.decode(),
            )
        return min(seconds, MOST_PATIENCE_S)
    for name in _TIMEOUTS:
        seconds = _seconds(header(scope, name))
        if seconds is not None:
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
    refuse_packed(scope)
    if int(header(scope, b"content-length") or 0) > limit_bytes:
        raise _too_large(limit_bytes)
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


def refuse_packed(scope: Scope) -> None:
    """A packed body of a megabyte may hold a gigabyte, and no client of the API packs."""
    if header(scope, b"content-encoding").strip().lower() not in {"", "identity"}:
        raise UnsupportedMedia("Packed bodies are not read: send it without Content-Encoding.", param="body")


async def read_json(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The body of an API whose bodies are JSON, whatever its Content-Type says: `curl -d` says form data."""
    body = await read_body(scope, receive, limit_bytes)
    charset = _charset(header(scope, b"content-type"))
    if charset not in _UTF_8 and not body.isascii():
        raise UnsupportedMedia(f"The body is in {charset[:40]}; send UTF-8 (RFC 8259, 8.1).", param="body")
    return body.removeprefix(_BOM)


def explain(scope: Scope, error: SciBoxError) -> SciBoxError:
    """The error, with a word on the Content-Type where that may be why a body is not JSON."""
    kind = header(scope, b"content-type").partition(";")[0].strip().lower()
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
