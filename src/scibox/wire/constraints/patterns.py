"""How large a regular expression becomes when its counted repetitions are written out.

`a{1000}` is seven characters and a thousand states; `((a{100}){100}){100}` a million. The size is an upper
bound that needs no regular expression engine: whether the pattern is one is for the compiler to say.
"""

from __future__ import annotations

import re

# A piece: an escape (with its {name}), a class, a group's opening or closing, a quantifier, or one character.
_PIECE = re.compile(
    r"\\[pPxuU]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"
    r"|(?P<open>\((?:\?(?:P?<\w*>|<?[=!]|[a-zA-Z-]*:))?)|(?P<close>\))|(?P<or>\|)"
    r"|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\}|(?P<loop>[*+?])|.",
    re.DOTALL,
)


def size(pattern: str) -> int:
    """The pieces of the pattern, each as often as counted repetitions repeat it; 0 for an empty one."""
    totals = [0]  # of each group that is open
    last = 0  # of the piece that a quantifier would repeat
    for piece in _PIECE.finditer(pattern):
        if piece["open"]:
            totals.append(0)
            last = 0
        elif piece["close"]:
            last = totals.pop() if len(totals) > 1 else 0
            totals[-1] += last
        elif piece["least"] or piece["most"]:
            times = max(int((piece[name] or "0")[:9]) for name in ("least", "most"))
            totals[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        elif not (piece["loop"] or piece["or"]):
            last = 1
            totals[-1] += 1
    return sum(totals)


def depth(pattern: str) -> int:
    """How deep its groups are nested."""
    deepest = level = 0
    for piece in _PIECE.finditer(pattern):
        level += 1 if piece["open"] else -1 if piece["close"] else 0
        deepest = max(deepest, level)
    return deepest
