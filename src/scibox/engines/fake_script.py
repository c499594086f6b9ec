"""What a fake engine is told to do, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scibox.engines.fake_dialect import Usage

Fault = Literal["reset", "close", "end", "stall", "garbage", "error"]
"""How an answer goes wrong: `reset` is RST (on a Unix socket there is none: a bare close), `close` drops the
connection inside the body, `end` ends the body properly but without `[DONE]`, `stall` goes silent until the
client leaves, `garbage` sends bytes that are no event and ends, `error` sends an error event and ends."""


@dataclass(frozen=True, slots=True)
class Script:
    """What the fake does with a call; the default is a quick, correct answer of twelve words.

    `status` other than 200 answers with `body` (or an error in llama-server's shape) and `headers`.
    `fault` strikes after `after_chunks` text deltas; a non-streaming answer breaks halfway instead, or
    before its headers when `after_chunks` is 0. `split_bytes` cuts the stream without regard to events.
    `refuse` drops connections as soon as they are accepted. `reasoning` comes before the text, `calls` (names
    and arguments of functions) after it; with calls there is no text unless `chunks` says so.
    """

    chunks: tuple[str, ...] | None = None
    reasoning: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    first_chunk_delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    status: int = 200
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    html_with_200: bool = False
    fault: Fault | None = None
    after_chunks: int = 0
    split_bytes: int | None = None
    refuse: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came: header names in lower case; `json` is None when the body is not JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    json: Any  # Any: tests read into it freely


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer whose last byte was handed to the socket: what an honest ledger must show."""

    id: str
    usage: Usage
    request_id: str = ""  # the caller's, from `x-request-id`


@dataclass(frozen=True, slots=True)
class Left:
    """A call whose client left before its answer was whole, after so many LLM tokens."""

    request_id: str
    completion_tokens: int


@dataclass(slots=True)
class Running:
    """A call that is being answered, and how much of it has been said."""

    request_id: str
    completion_tokens: int = 0


class Broken(Exception):
    """The script ends the connection here."""
