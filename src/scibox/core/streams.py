"""The life of a streamed answer: it waits, it has begun, it is over; and it is over for one reason.

Whoever writes a stream, or accounts for one, holds to this: the reader of a replica, the call's ticket, the
door. Only an answer that has `FINISHED` may say that it is whole (PROMISES S1).
"""

from __future__ import annotations

from .errors import Draining, SciBoxError, StorageUnavailable, UpstreamTimeout
from .types import Ending


class Misstep(Exception):
    """A transition that there is not: an error in the program."""


class Course:
    """One answer, from its call to its end."""

    __slots__ = ("ending", "has_begun")

    def __init__(self) -> None:
        self.has_begun = (
            False  # something of it has left: a failure cannot be told as an HTTP status any more
        )
        self.ending: Ending | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more may be said."""
        return self.ending is not None

    @property
    def is_whole(self) -> bool:
        """Whether it may be told as a whole answer, with `[DONE]` or what stands for it."""
        return self.ending is Ending.FINISHED

    def begin(self) -> None:
        """Something of it leaves, the first or more."""
        if self.ending is not None:
            raise Misstep(f"an answer goes on after it has ended: {self.ending.value}")
        self.has_begun = True

    def end(self, ending: Ending) -> None:
        """It is over, once; only what has begun can have finished."""
        if self.ending is not None:
            raise Misstep(f"an answer ends twice: {self.ending.value}, {ending.value}")
        if ending is Ending.FINISHED and not self.has_begun:
            raise Misstep("an answer has finished of which nothing has been said")
        self.ending = ending


def ending_of(error: Exception) -> tuple[Ending, str]:
    """How an answer ended that this error has ended, and the error's code."""
    if isinstance(error, UpstreamTimeout):
        return Ending.DEADLINE, error.code
    if isinstance(error, SciBoxError):
        is_refused = error.status < 500 or isinstance(error, Draining | StorageUnavailable)
        return (Ending.REFUSED if is_refused else Ending.UPSTREAM_ERROR), error.code
    return Ending.INTERNAL_ERROR, ""
