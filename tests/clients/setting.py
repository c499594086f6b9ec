"""Where the tests stand and what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]  # of the checkout
ENVIRONMENTS = ROOT / ".cache" / "clients"


class Service(Protocol):
    """A running service and a key of it; `base_url` is without `/v1`."""

    base_url: str
    secret: str
