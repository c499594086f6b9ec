"""Faces: the APIs that clients speak. Each makes a `Call` of a body, and tells the answer in its own words.

Inside there is one language: a chat call in OpenAI's words, answered by `chat.completion` bodies or
`chat.completion.chunk` events. The face of chat completions passes them on as they are; others translate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from scibox.core.errors import SciBoxError
from scibox.core.types import Call

from . import errors
from .paths import Paths


class Reply(Protocol):
    """How the answer to one call is told to its client; holds what it must remember of a stream."""

    def whole(self, body: bytes) -> bytes:
        """A non-streamed answer's body."""

    def event(self, data: bytes) -> bytes:
        """What is sent in place of one event (`data: ...`, blank line included); may be empty."""

    def error_event(self, error: SciBoxError) -> bytes:
        """The last event of a stream that failed."""


class Asked(Struct, frozen=True):
    """A call, and how its answer is to be told."""

    call: Call
    reply: Reply
    paths: Paths | None = None  # where the client wrote what the call holds; None: where the call has it

    def told(self, error: SciBoxError) -> SciBoxError:
        """An error of the call, with the client's own names."""
        return self.paths.tell(error) if self.paths else error


class Face(Protocol):
    """One API at the door."""

    def parse(self, request_id: str, raw: bytes) -> Asked:
        """Bytes to a call; `InvalidRequest` names the field at fault."""

    def error(self, error: SciBoxError, request_id: str) -> bytes:
        """The body of an error."""


class AsIs:
    """The reply of an API whose words are ours."""

    def whole(self, body: bytes) -> bytes:
        """The body, untouched."""
        return body

    def event(self, data: bytes) -> bytes:
        """The event, untouched."""
        return data

    def error_event(self, error: SciBoxError) -> bytes:
        """An error in OpenAI's shape; no `[DONE]` follows it."""
        return errors.event(error)


AS_IS = AsIs()


@dataclass(frozen=True, slots=True)
class Plain:
    """The face of an API whose answers leave as the replica gave them."""

    read: Callable[[str, bytes], Call]

    def parse(self, request_id: str, raw: bytes) -> Asked:
        """Bytes to a call."""
        return Asked(self.read(request_id, raw), AS_IS)

    def error(self, error: SciBoxError, request_id: str) -> bytes:
        """OpenAI's shape."""
        return errors.render(error)
