"""An answer that has begun: its first chunk is there."""

from __future__ import annotations

from collections.abc import Iterator

from scibox.core.pulse import Flight
from scibox.core.types import Chunk
from scibox.upstream.client import Exchange
from scibox.wire.answers import Stream

from .replica import Replica


class Answer:
    """Of one attempt; `chunks` are those at hand. Whoever has it closes it."""

    __slots__ = ("chunks", "deltas", "exchange", "first", "flight", "has_begun", "stream")

    def __init__(self, flight: Flight[Replica], exchange: Exchange, stream: Stream | None) -> None:
        self.flight = flight
        self.exchange = exchange
        self.stream = stream
        self.first = Chunk(b"")
        self.has_begun = False
        self.chunks: Iterator[Chunk] = iter(())
        self.deltas = 0  # LLM tokens so far, about

    @classmethod
    def whole(cls, flight: Flight[Replica], exchange: Exchange, chunk: Chunk) -> Answer:
        """A non-streamed one."""
        answer = cls(flight, exchange, None)
        answer.first = chunk
        answer.has_begun = True
        usage = chunk.usage
        answer.deltas = (usage.completion_tokens or usage.prompt_tokens) if usage else 0
        return answer

    @property
    def is_whole(self) -> bool:
        """Whether the replica has said its last word; `chunks` may still hold some."""
        return self.stream is None or self.stream.finished

    def feed(self, received: bytes) -> None:
        """What the replica has sent, empty at its end; raises where it cannot be an answer."""
        stream = self.stream
        assert stream is not None
        if not received:
            stream.close()
            return
        self.chunks = stream.feed(received)
        if not self.has_begun:
            first = next(self.chunks, None)
            if first is not None:
                self.first = first
                self.deltas = first.deltas
                self.has_begun = True

    def close(self) -> None:
        """Nothing more is read; a replica that has not finished stops working."""
        self.flight.member.exchanges.discard(self.exchange)
        self.exchange.close()
