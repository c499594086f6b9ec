"""What the parent says on the first line of standard input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from scibox.engines.supervisor import Command

Count = Annotated[int, msgspec.Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to listen, what to load, under which name, and how much of the machine to use."""

    socket: str
    weights: str
    name: str
    threads: Count = 2
    # Padded length times texts of one run of the model. A run of this size takes about 0.2 s on two cores:
    # that is how long a short question waits behind a bulk call (docs/embeddings.md).
    batch_tokens: Count = 512

    @property
    def folder(self) -> Path:
        """The folder of the weights."""
        return Path(self.weights)


def command(settings: Settings) -> Command:
    """How to run it."""
    return Command("scibox.engines.embedder", msgspec.json.encode(settings))
