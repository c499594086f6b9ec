"""Entries: one durable line of the ledger for each call, whatever became of it; no prompt, no answer."""

from __future__ import annotations

from msgspec import Struct

from .types import NO_USAGE, Ending, Kind, Usage


class Entry(Struct, frozen=True, omit_defaults=True, gc=False):
    """What one call cost. Times are Unix seconds, durations seconds; `request_id` makes it unique for ever.

    `usage` is what the engine generated, as far as it said; `delivered_tokens` what of it left for the client
    (they differ where a client left or a stream broke off). `is_estimate`: the engine said nothing of usage.
    """

    request_id: str
    opened_at: float  # when the call came
    key_id: str
    owner: str
    model: str
    kind: Kind
    endpoint: str = ""  # as the client called it, without /v1: "/chat/completions"
    outcome: Ending = Ending.FINISHED
    code: str = ""  # of the error that ended it
    stream: bool = False
    is_background: bool = False
    usage: Usage = NO_USAGE
    delivered_tokens: int = 0
    is_estimate: bool = False
    texts: int = 0  # embedded or ranked
    deployment: int | None = None  # its index in the model; None: it never started
    replica: str = ""  # the address that answered
    attempts: int = 0
    queued_s: float = 0.0
    first_chunk_s: float | None = None  # from `opened_at`; None: no chunk came
    total_s: float = 0.0
    price: float = 0.0


class Opened(Struct, frozen=True, gc=False):
    """Written before a call starts at a replica: if the service dies, this much is known of it."""

    request_id: str
    opened_at: float
    key_id: str
    owner: str
    model: str
    kind: Kind
    endpoint: str = ""
    prompt_tokens: int = 0  # an estimate
    texts: int = 0
