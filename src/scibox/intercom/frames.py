"""The intercom's language: messages in MessagePack, each behind its length. Pure.

A worker asks (`Ask`) and is answered exactly once (`Answer` or `Failed`), after any number of `Note`s; it may
`Drop` what it has asked. Both sides `Tell` what needs no answer. `what` names the matter, `body` is its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Raw, Struct

from scibox.core.errors import SciBoxError

MAX_BYTES = 256 * 2**20  # a kept answer may be as large as a body; more than this is no frame of ours
_LENGTH = struct.Struct(">I")


class Ask(Struct, frozen=True, array_like=True, tag=1):
    """Something to be answered; `ref` is the asker's number for it."""

    ref: int
    what: str
    body: Raw


class Drop(Struct, frozen=True, array_like=True, tag=2):
    """Nobody waits for that answer any more."""

    ref: int


class Tell(Struct, frozen=True, array_like=True, tag=3):
    """Something to know."""

    what: str
    body: Raw


class Note(Struct, frozen=True, array_like=True, tag=4):
    """How it stands with what was asked."""

    ref: int
    body: Raw


class Answer(Struct, frozen=True, array_like=True, tag=5):
    """The answer."""

    ref: int
    body: Raw


class Fault(Struct, frozen=True, array_like=True):
    """An error on its way: the name of its class, and what it says."""

    kind: str
    message: str
    code: str
    param: str | None = None
    retry_after_s: int | None = None
    should_retry: bool | None = None


class Failed(Struct, frozen=True, array_like=True, tag=6):
    """The error that came instead of an answer."""

    ref: int
    fault: Fault


Message = Ask | Drop | Tell | Note | Answer | Failed
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Message] = msgspec.msgpack.Decoder(Message).decode
body = _encode  # the bytes of a message's own body


class NoFrame(Exception):
    """These bytes are not of the intercom; the connection is of no use any more."""


def frame(message: Message) -> bytes:
    """The bytes of a message."""
    content = _encode(message)
    return _LENGTH.pack(len(content)) + content


class Splitter:
    """Bytes as they come, to messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole now; `NoFrame` for what is none."""
        self._rest += data
        start = 0
        try:
            while len(self._rest) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._rest, start)
                if length > MAX_BYTES:
                    raise NoFrame(f"a frame of {length} bytes")
                end = start + _LENGTH.size + length
                if len(self._rest) < end:
                    break
                content = bytes(self._rest[start + _LENGTH.size : end])
                start = end
                yield _message(content)
        finally:
            del self._rest[:start]


def _message(content: bytes) -> Message:
    try:
        return _decode(content)
    except msgspec.MsgspecError as error:
        raise NoFrame(str(error)) from error


def fault(error: SciBoxError) -> Fault:
    """An error in a form that can be sent."""
    return Fault(
        kind=type(error).__name__,
        message=error.message.encode("utf-8", "replace").decode(),  # a client's words may not be encodable
        code=error.code,
        param=error.param,
        retry_after_s=error.retry_after_s,
        should_retry=error.should_retry,
    )


def error(fault: Fault) -> SciBoxError:
    """The error that was sent, in its own class."""
    kind = _kinds(SciBoxError).get(fault.kind, SciBoxError)
    return kind(
        fault.message,
        param=fault.param,
        code=fault.code,
        retry_after_s=fault.retry_after_s,
        should_retry=fault.should_retry,
    )


def _kinds(base: type[SciBoxError]) -> dict[str, type[SciBoxError]]:
    found = {base.__name__: base}
    for kind in base.__subclasses__():
        found |= _kinds(kind)
    return found
