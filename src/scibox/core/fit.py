"""Whether a prompt can fit a model's context, as far as that is known without counting.

Two bounds hold for the tokenizers of the models we serve (byte-level BPE; SentencePiece with byte
fallback): a text has at most one LLM token per UTF-8 byte, and no vocabulary entry spans more than
`LONGEST_ENTRY_BYTES` (the longest known, runs of one sign, have 128 characters; a character has at most
four bytes). White space is left out of the second bound: XLM-R's normaliser folds any run of it into one.
"""

from __future__ import annotations

from enum import Enum

LONGEST_ENTRY_BYTES = 4 * 128
TEMPLATE_TOKENS = 512  # room for what a chat template adds around the messages
MESSAGE_TOKENS = 16  # and around each message


class Fit(Enum):
    """What the bounds say."""

    FITS = "fits"
    UNKNOWN = "unknown"  # count before use
    TOO_LONG = "too long"


def fit(text_bytes: int, solid_bytes: int, context: int | None, overhead_tokens: int = 0) -> Fit:
    """Compare the bounds with a context of that many LLM tokens; an unknown context always fits."""
    if context is None or text_bytes + overhead_tokens <= context:
        return Fit.FITS
    if solid_bytes > context * LONGEST_ENTRY_BYTES:
        return Fit.TOO_LONG
    return Fit.UNKNOWN


def chat_overhead(messages: int) -> int:
    """LLM tokens that a chat template may add, at most."""
    return TEMPLATE_TOKENS + MESSAGE_TOKENS * messages
