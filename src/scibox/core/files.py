"""Stored files, and how lists of objects are paged. Frozen data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """What is known of a stored file; its content lies on disk under its id. Times are Unix seconds."""

    file_id: str
    owner: str
    name: str  # as the client called it; never a path of ours
    purpose: str
    size_bytes: int
    created_at: float
    expires_at: float | None = None

    def is_expired(self, now: float) -> bool:
        """Whether the file counts as gone at `now` (Unix seconds)."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a list: what follows the object of id `after`."""

    limit: int
    after: str | None = None
    is_ascending: bool = False  # oldest first
