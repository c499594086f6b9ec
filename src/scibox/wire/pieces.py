"""A chat answer as its pieces (reasoning, text, tool calls), whichever way it came: whole or in chunks.

The faces that tell an answer in items or blocks are written against these steps alone, and a whole answer
takes the same way as one large chunk: streamed or not, the client gets the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from scibox.core.errors import UpstreamBroken

PieceKind = Literal["reasoning", "text", "refusal", "tool"]
_UNREADABLE = "The model server's answer could not be read; try again in a few seconds."


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class ToolDelta(Struct):
    """A piece of a tool call; `index` says of which."""

    index: int | None = None
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class Delta(Struct):
    """What one chunk adds to the message, or the whole message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # vLLM's newer name of the same
    refusal: str | None = None
    tool_calls: list[ToolDelta] | None = None


class Logprobs(Struct):
    """Log-probabilities, each as the replica gave it."""

    content: list[Raw] | None = None


class Choice(Struct):
    """One choice of a chunk (`delta`) or of a whole answer (`message`)."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: str | int | None = None  # vLLM's: the stop sequence that matched, as text or as LLM token


class PromptDetails(Struct):
    """Of the prompt's LLM tokens."""

    cached_tokens: int | None = None


class CompletionDetails(Struct):
    """Of the completion's LLM tokens."""

    reasoning_tokens: int | None = None


class Counts(Struct):
    """`usage` of a chat answer."""

    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    @property
    def prompt(self) -> int:
        """LLM tokens of the prompt."""
        return self.prompt_tokens or 0

    @property
    def completion(self) -> int:
        """LLM tokens of the answer, reasoning included."""
        return self.completion_tokens or 0

    @property
    def cached(self) -> int:
        """LLM tokens of the prompt that had been computed before."""
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0

    @property
    def reasoning(self) -> int:
        """LLM tokens of the reasoning."""
        return (self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens) or 0


class Answer(Struct):
    """A chunk of a chat answer, or all of it."""

    model: str = ""
    created: int = 0
    choices: list[Choice] = []
    usage: Counts | None = None


@dataclass(slots=True)
class Piece:
    """One item of the answer; `position` counts from 0."""

    kind: PieceKind
    position: int
    call_id: str | None = None  # of a tool call
    name: str = ""  # of the function that it calls
    texts: list[str] = field(default_factory=list)
    logprobs: list[Raw] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it; a tool call's arguments."""
        return "".join(self.texts)


@dataclass(frozen=True, slots=True)
class Opened:
    """A piece begins."""

    piece: Piece


@dataclass(frozen=True, slots=True)
class Grown:
    """Text is added to the open piece."""

    piece: Piece
    text: str
    logprobs: list[Raw]


@dataclass(frozen=True, slots=True)
class Closed:
    """The open piece is whole."""

    piece: Piece


Step = Opened | Grown | Closed
_decoder = msgspec.json.Decoder(Answer)


def read(data: bytes) -> Answer:
    """The JSON of a chunk or of a whole chat answer."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamBroken(_UNREADABLE) from None


class Pieces:
    """Collects an answer; each method gives the steps that it caused."""

    def __init__(self, *, hides_reasoning: bool = False) -> None:
        self._hides_reasoning = hides_reasoning
        self.all: list[Piece] = []
        self.model = ""
        self.created = 0
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self.usage = Counts()
        self._open: Piece | None = None
        self._tool_index: int | None = None  # of the open piece, where it is a tool call
        self._tools_seen: set[int] = set()

    def add(self, answer: Answer) -> list[Step]:
        """One chunk, or all of the answer."""
        self.model = answer.model or self.model
        self.created = answer.created or self.created
        self.usage = answer.usage or self.usage
        steps: list[Step] = []
        for choice in answer.choices[:1]:
            self.finish_reason = choice.finish_reason or self.finish_reason
            self.stop_reason = choice.stop_reason if choice.stop_reason is not None else self.stop_reason
            delta = choice.delta or choice.message
            if delta is not None:
                logprobs = (choice.logprobs and choice.logprobs.content) or []
                steps += self._delta(delta, logprobs)
        return steps

    def end(self) -> list[Step]:
        """The answer is over. One without any piece is an empty text: clients look for one."""
        steps: list[Step] = []
        if not self.all:
            steps += self._enter("text")
        return steps + self._leave()

    def _delta(self, delta: Delta, logprobs: list[Raw]) -> list[Step]:
        steps: list[Step] = []
        thought = delta.reasoning_content or delta.reasoning
        if thought and not self._hides_reasoning:
            steps += self._grow("reasoning", thought, [])
        if delta.content or logprobs:
            steps += self._grow("text", delta.content or "", logprobs)
        if delta.refusal:
            steps += self._grow("refusal", delta.refusal, [])
        for position, call in enumerate(delta.tool_calls or []):
            steps += self._tool(call, position if call.index is None else call.index)
        return steps

    def _grow(self, kind: PieceKind, text: str, logprobs: list[Raw]) -> list[Step]:
        steps: list[Step] = []
        if self._open is None or self._open.kind != kind:
            steps += self._leave() + self._enter(kind)
        return steps + self._append(text, logprobs)

    def _tool(self, call: ToolDelta, index: int) -> list[Step]:
        steps: list[Step] = []
        if index != self._tool_index:
            if index in self._tools_seen:
                raise UpstreamBroken("The model server mixed two tool calls; try again.")
            self._tools_seen.add(index)
            steps += self._leave() + self._enter("tool", call)
            self._tool_index = index
        return steps + (self._append(call.function.arguments, []) if call.function.arguments else [])

    def _enter(self, kind: PieceKind, call: ToolDelta | None = None) -> list[Step]:
        piece = Piece(kind, len(self.all))
        if call is not None:
            piece.call_id, piece.name = call.id, call.function.name or ""
        self._open = piece
        self.all.append(piece)
        return [Opened(piece)]

    def _append(self, text: str, logprobs: list[Raw]) -> list[Step]:
        assert self._open is not None
        self._open.texts.append(text)
        self._open.logprobs += logprobs
        return [Grown(self._open, text, logprobs)]

    def _leave(self) -> list[Step]:
        if self._open is None:
            return []
        closed, self._open, self._tool_index = self._open, None, None
        return [Closed(closed)]
