"""What the wire must know of a replica."""

from __future__ import annotations

from msgspec import Struct

from scibox.core.types import Dialect, Thinking


class Target(Struct, frozen=True, gc=False):
    """What must be known of a replica to write to it."""

    model: str  # the name it is known by there
    dialect: Dialect = "openai"
    has_tools: bool = True  # its chat template shows tools to the model
    thinking: Thinking = "auto"
    is_hermes: bool = False  # its template writes calls as Hermes and Qwen do (wire/llama/offers.py)
