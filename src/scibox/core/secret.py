"""Secrets: their form, their checksum, their digest.

A secret is `sk-scibox-` + 30 random characters of base 62 (178 bits) + 6 characters that are the CRC-32
of all before them in base 62. The checksum lets a scanner or the door drop a mistyped or invented secret
without a look-up; it protects nothing by itself. Only the SHA-256 digest is stored: the secret has more
than 128 random bits, so a slow password function would add cost and no safety (OWASP, Password Storage).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence

PREFIX = "sk-scibox-"
RANDOM_CHARS = 30
CHECK_CHARS = 6
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LENGTH = len(PREFIX) + RANDOM_CHARS + CHECK_CHARS
PATTERN = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM_CHARS + CHECK_CHARS}}}")


def compose(numbers: Sequence[int]) -> str:
    """A secret from `RANDOM_CHARS` random numbers, each 0..61."""
    if len(numbers) != RANDOM_CHARS:
        raise ValueError(f"a secret takes {RANDOM_CHARS} numbers")
    body = PREFIX + "".join(ALPHABET[n] for n in numbers)
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether prefix, length, alphabet and checksum are right; says nothing of who holds it."""
    if PATTERN.fullmatch(secret) is None:
        return False
    return _checksum(secret[:-CHECK_CHARS]) == secret[-CHECK_CHARS:]


def digest(secret: str) -> str:
    """What is stored: SHA-256 in hex."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()  # it may be any text


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    chars: list[str] = []
    for _ in range(CHECK_CHARS):
        value, rest = divmod(value, len(ALPHABET))
        chars.append(ALPHABET[rest])
    return "".join(reversed(chars))
