"""Paged lists: `limit`, `after`, `order` of a query to a `Page`, and the list's own shape back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scibox.core.errors import InvalidRequest
from scibox.core.files import Page
from scibox.wire import body


def parse(query: Mapping[str, str], default: int, most: int, others: Iterable[str] = ()) -> Page:
    """The page that a query asks for; `others` are parameters that the list has beside."""
    body.refuse_unknown(query, {"limit", "after", *others})
    text = query.get("limit", str(default))
    # isdecimal and isascii: int() would take "１２" and " 12 " too
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and 1 <= int(text) <= most):
        raise InvalidRequest(f"'limit' must be a whole number from 1 to {most}.", param="limit")
    order = query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise InvalidRequest("'order' must be 'asc' or 'desc'.", param="order")
    return Page(int(text), query.get("after") or None, order == "asc")
