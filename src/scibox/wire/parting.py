"""Where reasoning ends and the answer begins, in a text that comes piece by piece.

Any pieces give the same parts. Held back is only what may still become a tag, and white space beside one.
"""

from __future__ import annotations

from enum import Enum

from scibox.core.types import Thinking

OPEN = "<think>"
CLOSE = "</think>"
_SPACE = " \t\r\n"
_QUOTES = tuple("`'\"«“‘")  # before a tag: it is spoken of, not used
_SURE = 2  # characters of the opening tag; a lone "<" at the end of a cut answer may be anything


class _At(Enum):
    START = 0  # nothing but white space or the beginning of a tag has come
    INSIDE = 1
    AFTER = 2  # the block has ended, the answer has not begun
    CONTENT = 3


class Parting:
    """Parts one text into reasoning and content."""

    def __init__(self, is_open: bool) -> None:
        self._is_open = is_open  # the chat template has written the opening tag
        self._at = _At.START
        self._held = ""
        self._has_reasoned = False
        self._said: list[str] = []  # in a block that the template opened: it may have been none

    @property
    def is_decided(self) -> bool:
        """Whether all that follows is content."""
        return self._at is _At.CONTENT

    @property
    def is_amid(self) -> bool:
        """Whether a piece without white space at its end and without `<` is reasoning, as it is."""
        return self._at is _At.INSIDE and self._has_reasoned and not self._held

    def feed(self, piece: str) -> tuple[str, str]:
        """The reasoning and the content that are certain with this piece."""
        if self._at is _At.CONTENT:
            return "", piece
        self._held += piece
        if self._at is _At.START:
            self._begin()
        reasoning = self._reason() if self._at is _At.INSIDE else ""
        if self._at is _At.AFTER:
            self._held = self._held.lstrip(_SPACE)
            self._at = _At.CONTENT if self._held else _At.AFTER
        content = self._release() if self._at is _At.CONTENT else ""
        return reasoning, content

    def end(self, reason: str, has_stop_words: bool) -> tuple[str, str]:
        """What was held back, once the text has ended for a `finish_reason`.

        A block that the template opened and that ends with `stop` was none, unless a stop word cut it: its
        text has left as reasoning and is given as content too, for a caller who would otherwise have none.
        """
        at, held = self._at, self._release()
        self._at = _At.CONTENT
        if at is _At.INSIDE or (at is _At.START and self._is_open):
            is_none = self._is_open and reason == "stop" and not has_stop_words
            return held, "".join([*self._said, held]) if is_none else ""
        if at is _At.START and reason == "length" and len(held.strip(_SPACE)) >= _SURE:
            return held, ""  # cut in the middle of the opening tag
        return "", held

    def settle(self) -> str:
        """Something other than text has come: what was held at the start is content after all."""
        if self._at is not _At.START or self._is_open:
            return ""
        self._at = _At.CONTENT
        return self._release()

    def pass_on(self) -> None:
        """The upstream separates by itself: all text is content."""
        self._held = ""
        self._at = _At.CONTENT

    def _begin(self) -> None:
        text = self._held.lstrip(_SPACE)
        if text.startswith(OPEN):
            self._at, self._is_open, self._held = _At.INSIDE, False, text[len(OPEN) :]
        elif text.startswith(CLOSE):
            self._at, self._held = _At.AFTER, text[len(CLOSE) :]
        elif not OPEN.startswith(text) and not CLOSE.startswith(text):
            self._at = _At.INSIDE if self._is_open else _At.CONTENT

    def _reason(self) -> str:
        if not self._has_reasoned:
            self._held = self._held.lstrip(_SPACE)
        at = self._held.find(CLOSE)
        if at >= 0:
            reasoning, self._held = self._held[:at].rstrip(_SPACE), self._held[at + len(CLOSE) :]
            self._at = _At.AFTER
        else:
            certain = len(self._held) - _tail(self._held)
            reasoning, self._held = self._held[:certain], self._held[certain:]
        self._has_reasoned |= bool(reasoning)
        if self._is_open:
            self._said.append(reasoning)
        return reasoning

    def _release(self) -> str:
        held, self._held = self._held, ""
        return held


def part(text: str, reason: str, thinking: Thinking, has_stop_words: bool) -> tuple[str, str]:
    """Reasoning and content of a whole text that ended for this `finish_reason`.

    A closing tag that nothing in the text has opened ends a block that the template opened. A block that was
    none (`Parting.end`) is content alone here, where nothing has left yet.
    """
    parting = Parting(thinking == "opened" or _has_lone_close(text))
    reasoning, content = parting.feed(text)
    last_reasoning, last_content = parting.end(reason, has_stop_words)
    if last_content and last_content == reasoning + last_reasoning:
        return "", last_content
    return reasoning + last_reasoning, content + last_content


def _has_lone_close(text: str) -> bool:
    before, tag, _ = text.partition(CLOSE)
    return bool(tag) and OPEN not in before and not before.endswith(_QUOTES)


def _tail(text: str) -> int:
    """How many of the last characters may belong to a closing tag: white space, then the tag's beginning."""
    size = next((n for n in range(len(CLOSE) - 1, 0, -1) if text.endswith(CLOSE[:n])), 0)
    before = text[: len(text) - size]
    return len(text) - len(before.rstrip(_SPACE))
