"""Paths: one form of each, however a client was configured; and what to say where there is nothing.

A base URL is written with and without `/v1`, with a slash at its end, and a client may add `/v1` itself. All
of these lead to the same route, without a redirect: a redirected POST loses its body in many clients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import httptools
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from scibox.core.names import nearest

_PREFIX = re.compile(r"(?:/+v1(?=/|$))*/*")
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_ORDER = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OWN_PREFIX = frozenset({"/", "/health", "/ready", "/openapi.json", "/tokenize", "/detokenize", "/v2/rerank"})


def of_target(target: bytes) -> str:
    """The path of a request's target, as uvicorn reads it."""
    return unquote(httptools.parse_url(target).path.decode("ascii"))


def plain(path: str) -> str:
    """A path without `/v1`, doubled slashes at its start and slashes at its end: as routes are written."""
    return "/" + _PREFIX.sub("", path, count=1).rstrip("/")


def shown(route: Route) -> str:
    """A route's path as the documents have it."""
    path = _PARAMETER.sub(r"{\1}", route.path)
    return path if path in _OWN_PREFIX or path.startswith("/admin/") else f"/v1{path}"


def methods(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """The methods of a path; none where there is nothing. Of patterns that overlap, the first is meant."""
    found: set[str] = set()
    pattern = None
    for route in routes:
        if route.matches({**scope, "method": "GET"})[0] is not Match.NONE:
            path = getattr(route, "path", None)
            pattern = pattern or path
            if path == pattern:
                is_folder = isinstance(route, Mount)
                found |= {"GET", "HEAD"} if is_folder else getattr(route, "methods", None) or set()
    return [method for method in _ORDER if method in found or (found and method == "OPTIONS")]


def hint(path: str, known: Sequence[str]) -> str:
    """What was probably meant by a path that leads nowhere; empty where nobody can tell."""
    for whole in known:
        if whole.startswith("/v1/") and path.endswith(whole.removeprefix("/v1")):
            return f" The path is {whole}: a client's base URL ends in /v1, and the client adds the rest."
    bare = {plain(whole): whole for whole in known}
    close = nearest(plain(path), sorted(bare))
    return f" Did you mean {bare[close]}?" if close else ""
