"""`GET /v1/usage` and `/admin/v1/usage`: queries and answers, in the shapes of OpenAI's usage API.

Source: OpenAI's API reference, "Usage" (pages of buckets of results). Ours beside: `owner`, `endpoint`,
`outcome`, texts, seconds, price; and all of a range in one bucket, `bucket_width=all`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from scibox.core import keys, quotas
from scibox.core.errors import InvalidRequest
from scibox.core.sums import DAY_S, HOUR_S, LATEST, Dimension, Group, Scope, Sums
from scibox.wire import body

Width = Literal["1h", "1d", "all"]
WIDTHS: Mapping[Width, int | None] = {"1h": HOUR_S, "1d": DAY_S, "all": None}
LISTED: Mapping[Width, int] = {"1h": 24, "1d": 31, "all": 1}
MOST_LISTED: Mapping[Width, int] = {"1h": 168, "1d": 366, "all": 1}
GROUPS: Mapping[str, Dimension] = {
    "owner": "owner",
    "api_key_id": "key",
    "model": "model",
    "endpoint": "endpoint",
    "outcome": "outcome",
}
FAILED_LISTED, MOST_FAILED_LISTED = 20, 100
_NAMES = 100  # in one filter


class UsageQuery(Struct, frozen=True):
    """What is asked: `scope` is this page's part of the range, `rest` where the next page begins."""

    scope: Scope
    width_s: int | None
    by: tuple[str, ...]
    rest: int | None

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The buckets' own first."""
        whole: dict[int | None, tuple[Dimension, ...]] = {HOUR_S: ("hour",), DAY_S: ("day",), None: ()}
        return (*whole[self.width_s], *(GROUPS[name] for name in self.by))


class UsageResult(Struct):
    """What the calls of one group cost together. Names that were not grouped by are null."""

    num_model_requests: int
    input_tokens: int
    input_cached_tokens: int
    output_tokens: int
    output_reasoning_tokens: int
    delivered_tokens: int
    texts: int
    price: float
    queued_s: float
    total_s: float
    owner: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    endpoint: str | None = None
    outcome: str | None = None
    object: Literal["usage.result"] = "usage.result"


class UsageBucket(Struct):
    """An hour, a day (UTC) or the whole range; Unix seconds, `end_time` is the first after it."""

    start_time: int
    end_time: int
    results: list[UsageResult]
    object: Literal["bucket"] = "bucket"


class UsagePage(Struct):
    """Usage. While `is_complete` is false, calls wait in a journal until the database has caught up."""

    data: list[UsageBucket]
    has_more: bool
    next_page: str | None
    is_complete: bool = True
    object: Literal["page"] = "page"


class FailedCall(Struct):
    """A call that did not finish; `id` is its `x-request-id`."""

    id: str
    created_at: int
    api_key_id: str
    model: str
    endpoint: str
    outcome: str
    code: str | None
    object: Literal["usage.error"] = "usage.error"


class FailedList(Struct):
    """The last of them, the newest first."""

    data: list[FailedCall]
    object: Literal["list"] = "list"


def parse(pairs: Iterable[tuple[str, str]], now: float, owner: str | None) -> UsageQuery:
    """The query; `owner`: whose calls alone are shown, None where the caller may choose."""
    query = _gather(pairs, {"owners"} if owner is None else set())
    width = query.one("bucket_width", "1d")
    if width not in WIDTHS:
        raise InvalidRequest("'bucket_width' must be '1h', '1d' or 'all'.", param="bucket_width")
    width = cast(Width, width)
    by = query.many("group_by")
    for name in by:
        if name not in GROUPS:
            raise InvalidRequest(
                f"'group_by' takes {', '.join(GROUPS)}, not '{name[:40]}'.", param="group_by"
            )
    since = query.number("start_time", 0, LATEST, int(quotas.span("month", now)[0]))
    until = query.number("end_time", 0, LATEST, int(now) + 1)
    if since >= until:
        raise InvalidRequest("'end_time' must be after 'start_time'.", param="end_time")
    whole = Scope(
        since,
        until,
        (owner,) if owner is not None else tuple(map(keys.written, query.many("owners"))),
        query.many("api_key_ids"),
        query.many("models"),
    ).in_hours()
    limit = query.number("limit", 1, MOST_LISTED[width], LISTED[width])
    scope, rest = _cut(whole, WIDTHS[width], limit, query.page())
    return UsageQuery(scope, WIDTHS[width], tuple(dict.fromkeys(by)), rest)


def render(query: UsageQuery, rows: Sequence[tuple[Group, Sums]], *, is_complete: bool) -> bytes:
    """The page; buckets without calls are there too."""
    since, until, width_s = query.scope.since, query.scope.until, query.width_s
    if width_s is None:
        buckets = {since: UsageBucket(since, until, [])}
    else:
        starts = range(since - since % width_s, until, width_s)
        buckets = {at: UsageBucket(at, at + width_s, []) for at in starts}
    names = _named(query)
    for group, sums in rows:
        at = since if width_s is None else cast(int, group[0])
        buckets[at].results.append(_result(sums, names(group)))
    following = None if query.rest is None else f"page_{query.rest}"
    page = UsagePage(list(buckets.values()), following is not None, following, is_complete)
    return msgspec.json.encode(page)


def parse_failed(pairs: Iterable[tuple[str, str]], owner: str | None) -> tuple[str | None, int]:
    """Whose failed calls are asked for, and how many of them."""
    query = _Query(_known(pairs, {"limit"} | ({"owner"} if owner is None else set())))
    chosen = keys.written(query.one("owner", "")) or None if owner is None else owner
    return chosen, query.number("limit", 1, MOST_FAILED_LISTED, FAILED_LISTED)


def render_failed(calls: Iterable[FailedCall]) -> bytes:
    """The list."""
    return msgspec.json.encode(FailedList(list(calls)))


class _Query:
    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._values = values

    def one(self, name: str, default: str) -> str:
        values = self._values.get(name, ())
        if len(values) > 1:
            raise InvalidRequest(f"'{name}' is given more than once.", param=name)
        return values[0] if values else default

    def many(self, name: str) -> tuple[str, ...]:
        """Repeated, with brackets as OpenAI's clients write it, or with commas."""
        names = [item for value in self._values.get(name, ()) for item in value.split(",") if item]
        if len(names) > _NAMES:
            raise InvalidRequest(f"'{name}' takes at most {_NAMES} names.", param=name)
        return tuple(names)

    def number(self, name: str, least: int, most: int, default: int) -> int:
        text = self.one(name, str(default))
        # isdecimal and isascii: int() would take "１２" and " 12 " too
        if not (text.isascii() and text.isdecimal() and len(text) < 16 and least <= int(text) <= most):
            raise InvalidRequest(f"'{name}' must be a whole number from {least} to {most}.", param=name)
        return int(text)

    def page(self) -> int | None:
        text = self.one("page", "")
        if not text:
            return None
        number = text.removeprefix("page_")
        if not (number.isascii() and number.isdecimal() and len(number) < 16 and int(number) <= LATEST):
            raise InvalidRequest("'page' must be the 'next_page' of an answer.", param="page")
        return int(number)


def _gather(pairs: Iterable[tuple[str, str]], others: set[str]) -> _Query:
    known = {"start_time", "end_time", "bucket_width", "group_by", "models", "api_key_ids", "limit", "page"}
    return _Query(_known(pairs, known | others))


def _known(pairs: Iterable[tuple[str, str]], names: set[str]) -> Mapping[str, Sequence[str]]:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name.removesuffix("[]"), []).append(value)
    body.refuse_unknown(values, names)
    return values


def _cut(whole: Scope, width_s: int | None, limit: int, page: int | None) -> tuple[Scope, int | None]:
    """The part of the range that a page shows, and where the next one begins."""
    if width_s is None:
        return whole, None
    since = whole.since if page is None else max(whole.since, page - page % HOUR_S)
    first = since - since % width_s
    last = first + limit * width_s
    until = min(whole.until, last)
    if since >= until:
        raise InvalidRequest("'page' lies outside of the range that is asked for.", param="page")
    scope = Scope(since, until, whole.owners, whole.keys, whole.models)
    return scope, last if last < whole.until else None


def _named(query: UsageQuery) -> Callable[[Group], tuple[Any, ...]]:
    """The names of a group in the order of a result's fields."""
    of = [*query.dimensions]
    places = [of.index(dimension) if dimension in of else -1 for dimension in GROUPS.values()]
    choose = itemgetter(*places)
    return lambda group: choose((*group, None))


def _result(sums: Sums, names: tuple[Any, ...]) -> UsageResult:
    return UsageResult(
        sums.calls,
        sums.prompt_tokens,
        sums.cached_tokens,
        sums.completion_tokens,
        sums.reasoning_tokens,
        sums.delivered_tokens,
        sums.texts,
        round(sums.price, 9),
        round(sums.queued_s, 3),
        round(sums.total_s, 3),
        *names,
    )
