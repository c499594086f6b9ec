"""`scibox keys`: made one by one or from a table, listed, changed, rotated, revoked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scibox.core.errors import OperatorError

from . import parts

if TYPE_CHECKING:
    from scibox.core.keys import KeyChange, Shown
    from scibox.service.admin import Admin, Made

Commands = Any  # argparse's type of it is private
MOST = 10**9


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The commands."""
    keys = commands.add_parser("keys", help="create, list, change and revoke API keys")
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    _add_create(actions, common)
    listing = actions.add_parser("list", parents=[common], help="list the keys")
    listing.add_argument("--owner", help="only keys of this owner")
    listing.add_argument(
        "--state", choices=("active", "disabled", "expired", "revoked"), help="only keys in this state"
    )
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", parents=[common], help="one key")
    show.add_argument("key_id", help="an id from `scibox keys list`")
    show.set_defaults(run=_show)
    _add_set(actions, common)
    rotate = actions.add_parser("rotate", parents=[common], help="a new secret for a key; it is shown once")
    rotate.add_argument("key_id", help="an id from `scibox keys list`")
    rotate.add_argument(
        "--overlap",
        type=parts.seconds,
        default=0.0,
        metavar="TIME",
        help="the old secret works as long beside the new one: 30m, 24h, 7d (default: not at all)",
    )
    rotate.set_defaults(run=_rotate)
    for parser in (listing, show, rotate):
        parser.add_argument("--json", action="store_true", help="as /admin/v1/keys answers")
    _add_many(actions, common)


def _add_create(actions: Commands, common: argparse.ArgumentParser) -> None:
    create = actions.add_parser(
        "create", parents=[common], help="make a key, or many from a table; secrets are shown once"
    )
    create.add_argument("name", nargs="?", help="what the key is for")
    create.add_argument("--owner", help="team or person it belongs to (default: the name)")
    create.add_argument("--days", type=parts.number, help="days until it expires (default: never)")
    create.add_argument("--model", action="append", help="allow only this model; may be repeated")
    create.add_argument("--operator", action="store_true", help="an operator's key")
    create.add_argument("--json", action="store_true", help="as POST /admin/v1/keys answers")
    parts.add_limits(create)
    table = create.add_argument_group("from a table", "all of its keys are made, or none")
    table.add_argument(
        "--from",
        dest="table",
        metavar="FILE",
        type=Path,
        help="CSV with a line of columns: owner, name, days, models, limits, weight, role, note",
    )
    table.add_argument("--out", metavar="FILE", type=Path, help="where the secrets go (default: shown here)")
    table.add_argument("--again", action="store_true", help="a new key also where one is there already")
    table.add_argument("--base-url", help="what the table tells callers (default: as configured)")
    create.set_defaults(run=_create)


def _add_set(actions: Commands, common: argparse.ArgumentParser) -> None:
    change = actions.add_parser("set", parents=[common], help="change a key")
    change.add_argument("key_id", help="an id from `scibox keys list`")
    change.add_argument("--name", help="what it is for")
    change.add_argument("--days", help="days until it expires, from now; or 'never'")
    change.add_argument("--model", action="append", help="allow only this model; may be repeated")
    change.add_argument("--all-models", action="store_true", help="allow every model")
    change.add_argument("--role", choices=("member", "operator"))
    change.add_argument("--force", action="store_true", help="also the last operator's key")
    change.add_argument("--json", action="store_true", help="as POST /admin/v1/keys/KEY_ID answers")
    parts.add_limits(change)
    change.set_defaults(run=_set)


def _add_many(actions: Commands, common: argparse.ArgumentParser) -> None:
    words = {
        "revoke": "end keys for ever; within a second",
        "disable": "refuse keys until they are enabled again",
        "enable": "the end of disable",
    }
    for name, what in words.items():
        parser = actions.add_parser(name, parents=[common], help=what)
        parser.add_argument("key_id", nargs="*", help="ids from `scibox keys list`")
        parser.add_argument("--owner", help="all keys of this owner")
        parser.add_argument("--force", action="store_true", help="also the last operator's key")
        parser.set_defaults(run=_revoke if name == "revoke" else _enable, enabled=name == "enable")


def _create(options: argparse.Namespace) -> int:
    if (options.name is None) == (options.table is None):
        return parts.fail("Give the name of a key, or a table with --from; not both.", status=2)
    return _create_one(options) if options.table is None else _create_many(options)


def _create_one(options: argparse.Namespace) -> int:
    import msgspec

    from scibox.wire.admin import keys as wire

    body = {
        "owner": options.owner or options.name,
        "name": options.name,
        "days": options.days,
        "models": options.model,
        "role": "operator" if options.operator else "member",
        "limits": parts.limits(options),
    }
    with parts.office(options) as admin:
        made = admin.create(wire.parse_new(msgspec.json.encode(body), admin.now()))
    return _hand_over(options, made, f"{made.key.key_id} for {made.key.owner}.")


def _create_many(options: argparse.Namespace) -> int:
    from scibox.wire.admin import table

    raw = _read(options.table)
    base_url = options.base_url or f"{parts.config(options).server.url}/v1"
    written: list[Path] = []
    try:
        with parts.office(options) as admin:
            asked = table.parse(raw, admin.now())

            def hand_out(made: Made) -> None:
                """Before the keys are stored: a full disk must not cost the only copy of their secrets."""
                if options.out is not None and made.keys:
                    _write(options.out, table.render(made.keys, base_url, asked.style))
                    written.append(options.out)

            made = admin.create_many(asked.drafts, options.again, hand_out)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)  # its secrets open nothing
        raise
    if options.out is None and made.keys:
        print(table.render(made.keys, base_url, table.Style(asked.style.delimiter)).decode(), end="")
    print(_summary(made, options), file=sys.stderr)
    return 0


def _summary(made: Made, options: argparse.Namespace) -> str:
    told = f"{len(made.keys)} keys made"
    if made.keys and options.out is not None:
        told += f"; their secrets are in {options.out} and nowhere else: hand them out, then delete it"
    if made.skipped:
        told += f"; {len(made.skipped)} were there already (--again makes another)"
    return f"{told}."


def _list(options: argparse.Namespace) -> int:
    from scibox.core.files import Page
    from scibox.wire.admin import keys as wire

    with parts.office(options) as admin:
        query = wire.KeyQuery(Page(MOST, is_ascending=True), options.owner, options.state)
        keys, _ = admin.keys(query)
        now = admin.now()
    if options.json:
        parts.print_json(wire.render_list(keys, has_more=False, now=now))
    elif not keys:
        print("There are no such keys; make one with: scibox keys create NAME", file=sys.stderr)
    else:
        heads = ("KEY", "OWNER", "NAME", "ROLE", "SECRET", "STATE", "LAST USED")
        parts.print_table([heads, *(_row(shown, now) for shown in keys)])
    return 0


def _row(shown: Shown, now: float) -> tuple[str, ...]:
    key = shown.key
    return (
        *(key.key_id, key.owner, key.name, key.role, f"...{key.last_four}"),
        _state(shown, now),
        parts.moment(shown.used_at),
    )


def _state(shown: Shown, now: float) -> str:
    from scibox.core.keys import state

    name = state(shown.key, now)
    return (
        f"until {parts.moment(shown.key.expires_at)}" if name == "active" and shown.key.expires_at else name
    )


def _show(options: argparse.Namespace) -> int:
    with parts.office(options) as admin:
        return _tell(options, admin, admin.key(options.key_id))


def _set(options: argparse.Namespace) -> int:
    import msgspec

    from scibox.wire.admin import keys as wire

    if options.model and options.all_models:
        return parts.fail("Give --model or --all-models, not both.", status=2)
    given = {"name": options.name, "role": options.role, "models": options.model}
    body: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if options.all_models:
        body["models"] = None
    if options.days is not None:
        body["days"] = _days(options.days)
    if limits := parts.limits(options):
        body["limits"] = limits
    with parts.office(options) as admin:
        change, _ = wire.parse_change(msgspec.json.encode(body), admin.now())
        return _tell(options, admin, admin.change(options.key_id, change, options.force))


def _rotate(options: argparse.Namespace) -> int:
    with parts.office(options) as admin:
        made = admin.rotate(options.key_id, options.overlap)
    until = f"until {parts.moment(made.old_until)}" if options.overlap else "no longer"
    return _hand_over(options, made, f"{made.key.key_id} of {made.key.owner}: the old secret works {until}.")


def _revoke(options: argparse.Namespace) -> int:
    with parts.office(options) as admin:
        key_ids = _named(options, admin)
        outcome = admin.revoke_many(key_ids, options.force)
    for key in outcome.keys:
        print(f"{key.key_id} of {key.owner} is revoked.")
    if outcome.waits_for is not None:
        print(
            f"The database does not work now ({outcome.waits_for}). The service of this data folder refuses "
            f"{', '.join(key_ids)} from now on all the same, and tells the database when it is back."
        )
        return 0
    missing = set(key_ids) - {key.key_id for key in outcome.keys}
    return max(
        (parts.fail(f"There is no key '{one}'; see: scibox keys list") for one in sorted(missing)), default=0
    )


def _enable(options: argparse.Namespace) -> int:
    from scibox.core.keys import KeyChange

    change: KeyChange = KeyChange(is_enabled=options.enabled)
    with parts.office(options) as admin:
        for key in admin.change_many(_named(options, admin), change, options.force):
            print(f"{key.key_id} of {key.owner} is {'enabled' if options.enabled else 'disabled'}.")
    return 0


def _named(options: argparse.Namespace, admin: Admin) -> list[str]:
    """The ids of the keys that the options mean."""
    if bool(options.key_id) == (options.owner is not None):
        raise OperatorError("Give ids of keys, or an owner with --owner; not both.")
    if options.key_id:
        return list(dict.fromkeys(options.key_id))
    return admin.ids_of(options.owner)


def _hand_over(options: argparse.Namespace, made: Shown, words: str) -> int:
    from scibox.wire.admin import keys as wire

    if options.json:
        import time

        parts.print_json(wire.render(made, time.time()))
    else:
        print(made.secret)
    print(f"{words} The secret is shown only now: hand it over safely.", file=sys.stderr)
    return 0


def _tell(options: argparse.Namespace, admin: Admin, shown: Shown) -> int:
    from scibox.wire.admin import keys as wire

    if options.json:
        parts.print_json(wire.render(shown, admin.now()))
        return 0
    key = shown.key
    parts.print_facts(
        {
            "key": key.key_id,
            "owner": key.owner,
            "name": key.name,
            "role": key.role,
            "secret": f"...{key.last_four}",
            "state": _state(shown, admin.now()),
            "models": "all" if key.models is None else " ".join(sorted(key.models)),
            "limits": parts.told(key.limits) or "none",
            "made": parts.moment(key.created_at),
            "last used": parts.moment(shown.used_at),
        }
    )
    return 0


def _days(text: str) -> float | None:
    if text == "never":
        return None
    try:
        return parts.number(text)
    except argparse.ArgumentTypeError:
        raise OperatorError("--days takes a number above 0, or 'never'.") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.") from error


def _write(path: Path, content: bytes) -> None:
    """A new file for its user alone, on the disk when this returns."""
    import os

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except FileExistsError as error:
        raise OperatorError(f"{path} is there already, and may hold secrets: name another --out.") from error
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}; no key was made.") from error
