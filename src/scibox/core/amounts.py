"""What may be limited. By itself, so that the command line can name it without loading what calls need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one subject (a key, an owner, a model) may use; None: no limit. Days and months are UTC's."""

    calls_per_second: int | None = None
    calls_per_minute: int | None = None
    tokens_per_minute: int | None = None  # LLM tokens, of prompts and completions together
    texts_per_minute: int | None = None  # texts to embed or to rank
    calls_in_flight: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None

    @property
    def are_none(self) -> bool:
        """Whether nothing is limited."""
        return self == NO_LIMITS


NO_LIMITS = Limits()
