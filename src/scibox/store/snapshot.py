"""What was last read of keys and owners, in a file, so that a start without the database knows its callers.

No secrets, only their digests.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from .keys import Known

_known = msgspec.json.Decoder(Known)


def save(path: Path, known: Known) -> None:
    """Replace the file as a whole; raises OSError. Only its user may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb", opener=_private) as file:
            file.write(msgspec.json.encode(known))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read(path: Path) -> Known | None:
    """What was saved; None where nothing was, or nothing that can be read."""
    try:
        return _known.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
