"""`scibox owners`: who the keys belong to, their shares and their limits."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from . import parts

if TYPE_CHECKING:
    from scibox.core.types import Owner

Commands = Any  # argparse's type of it is private
MOST = 10**9


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The commands."""
    owners = commands.add_parser("owners", help="list and change owners: shares and limits")
    actions = owners.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", parents=[common], help="list the owners")
    show = actions.add_parser("show", parents=[common], help="one owner")
    show.add_argument("name")
    change = actions.add_parser(
        "set", parents=[common], help="change an owner; made first where it is not there"
    )
    change.add_argument("name")
    change.add_argument(
        "--weight", type=parts.number, help="twice the weight is twice the share of a busy model"
    )
    change.add_argument("--note", help="a word for operators")
    parts.add_limits(change)
    remove = actions.add_parser("remove", parents=[common], help="forget an owner without keys")
    remove.add_argument("name")
    for parser, run in ((listing, _list), (show, _show), (change, _set), (remove, _remove)):
        parser.set_defaults(run=run)
        if parser is not remove:
            parser.add_argument("--json", action="store_true", help="as GET /admin/v1/owners answers")


def _list(options: argparse.Namespace) -> int:
    from scibox.core.files import Page
    from scibox.wire.admin import owners as wire

    with parts.office(options) as admin:
        owners, keys, _ = admin.owners(Page(MOST, is_ascending=True))
    if options.json:
        parts.print_json(wire.render_list(owners, keys, has_more=False))
    elif not owners:
        print("There are no owners yet; they come with their keys: scibox keys create NAME", file=sys.stderr)
    else:
        rows = [
            (
                owner.name,
                f"{owner.weight:g}",
                str(keys.get(owner.name, 0)),
                parts.told(owner.limits),
                owner.note,
            )
            for owner in owners
        ]
        parts.print_table([("OWNER", "WEIGHT", "KEYS", "LIMITS", "NOTE"), *rows])
    return 0


def _show(options: argparse.Namespace) -> int:
    with parts.office(options) as admin:
        owner, keys = admin.owner(options.name)
    return _tell(options, owner, keys)


def _set(options: argparse.Namespace) -> int:
    import msgspec

    from scibox.core.errors import NotFound
    from scibox.wire.admin import owners as wire

    given: dict[str, object] = {"weight": options.weight, "note": options.note}
    body: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if limits := parts.limits(options):
        body["limits"] = limits
    with parts.office(options) as admin:
        try:
            admin.owner(options.name)  # one that is not there may be made without anything to change
            owner, keys = admin.change_owner(options.name, wire.parse_change(msgspec.json.encode(body)))
        except NotFound:
            made = wire.parse_new(msgspec.json.encode({"name": options.name, **body}), admin.now())
            owner, keys = admin.add_owner(made), 0
    return _tell(options, owner, keys)


def _remove(options: argparse.Namespace) -> int:
    with parts.office(options) as admin:
        admin.remove_owner(options.name)
    print(f"{options.name} is no owner any more.")
    return 0


def _tell(options: argparse.Namespace, owner: Owner, keys: int) -> int:
    from scibox.wire.admin import owners as wire

    if options.json:
        parts.print_json(wire.render(owner, keys))
        return 0
    parts.print_facts(
        {
            "owner": owner.name,
            "weight": f"{owner.weight:g}",
            "limits": parts.told(owner.limits) or "none",
            "keys": str(keys),
            "note": owner.note,
            "made": parts.moment(owner.created_at),
        }
    )
    return 0
