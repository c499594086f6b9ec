"""Where the client wrote what a chat call holds elsewhere: errors name the client's own fields."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scibox.core.errors import InvalidRequest, SciBoxError


class Paths:
    """Chat's paths and the client's; `names` are those that are the same for every call of a face."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._own = dict(names)

    def note(self, chat: str, own: str) -> None:
        """What chat calls `chat` stands at `own`."""
        self._own[chat] = own

    def find(self, path: str) -> str:
        """The client's path; chat's longest known beginning decides, and an unknown path stays."""
        known = [prefix for prefix in self._own if _begins(path, prefix)]
        if not known:
            return path
        longest = max(known, key=len)
        return self._own[longest] + path[len(longest) :]

    def tell(self, error: SciBoxError) -> SciBoxError:
        """The error with the client's path, in `param` and where its message quotes it."""
        if not isinstance(error, InvalidRequest) or error.param is None:
            return error
        own = self.find(error.param)
        if own == error.param:
            return error
        # Other fields that the message quotes are chat's too ("'top_logprobs' needs 'logprobs'").
        message = re.sub(r"'([A-Za-z_][^'\s]*)'", lambda quoted: f"'{self.find(quoted[1])}'", error.message)
        return type(error)(message, param=own, code=error.code, retry_after_s=error.retry_after_s)


def _begins(path: str, prefix: str) -> bool:
    return path == prefix or (path.startswith(prefix) and path[len(prefix)] in ".[")
