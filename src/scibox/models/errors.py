"""What can go wrong between an entry of the catalogue and weights on the disk."""

from __future__ import annotations

from scibox.core.errors import OperatorError


class SourceFailed(Exception):
    """One source could not give its file; another one may. The message says why."""


class WrongDigest(SourceFailed):
    """The bytes that arrived are not the ones the catalogue names; nothing of them was kept."""


class PullFailed(OperatorError):
    """No source could give the weights, or there is no room for them; the message says what to do."""


class NoSpace(PullFailed):
    """The disk is too small; trying another source would not help."""
