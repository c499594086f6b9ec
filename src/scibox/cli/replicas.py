"""`scibox replicas`: what serves the models of a running service, and changing it without a dropped call."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from scibox.core.errors import OperatorError

from . import operator, parts

if TYPE_CHECKING:
    from scibox.wire.admin.replicas import AdminReplica, AdminReplicaList

Commands = Any  # argparse's type of it is private
PATH = "/admin/v1/replicas"
ADDED = ("upstream_model", "upstream_key_env", "upstream_key_file", "slots", "dialect", "engine", "weights")
ENGINE_S = 900.0  # an engine may have to fetch its weights before it answers


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The commands."""
    replicas = commands.add_parser(
        "replicas", help="list, add, drain and remove replicas of a running service"
    )
    actions = replicas.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, words: str, run: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = actions.add_parser(name, parents=[common], help=words)
        operator.add_key(parser)
        parser.set_defaults(run=run)
        return parser

    listing = action("list", "list the replicas", _list)
    listing.add_argument("--json", action="store_true", help="as GET /admin/v1/replicas answers")
    adding = action("add", "add a replica to a model", _add)
    adding.add_argument("model")
    adding.add_argument("url", nargs="?", help="of an upstream; else --engine and --weights")
    adding.add_argument("--deployment", type=int, default=0, help="which one it joins, counted from 0")
    for name in ADDED:
        kind = int if name == "slots" else str
        adding.add_argument(f"--{name.replace('_', '-')}", type=kind, help="as in the configuration")
    for name, words in (
        ("drain", "give it no new calls; running ones finish"),
        ("undrain", "give it calls again"),
        ("remove", "drain an added one for good"),
    ):
        changing = action(name, words, _remove if name == "remove" else _drain)
        changing.add_argument("which", help="its id or url, or the name of a model: all of its replicas")
        changing.set_defaults(is_draining=name == "drain")
        if name != "undrain":
            changing.add_argument("--force", action="store_true", help="also the last that takes calls")
        if name == "remove":
            changing.add_argument("--now", action="store_true", help="cut its calls")


def _list(options: argparse.Namespace) -> int:
    import msgspec

    listed = _listed(options)
    if options.json:
        parts.print_json(msgspec.json.encode(listed))
        return 0
    rows = [("ID", "MODEL", "WHERE", "STATE", "CALLS", "SLOTS", "FROM")]
    rows += [
        (
            *(one.id, one.model, one.url or f"engine {one.engine}", one.state, str(one.in_flight)),
            *("?" if one.slots is None else str(one.slots), "operator" if one.added else "file"),
        )
        for one in listed.data
    ]
    parts.print_table(rows)
    for one in listed.data:
        if one.message:
            print(f"\n{one.id}: {one.message}")
    return 0


def _add(options: argparse.Namespace) -> int:
    import msgspec

    from scibox.wire.admin.replicas import AdminReplica

    body: dict[str, object] = {"model": options.model, "deployment": options.deployment, "url": options.url}
    body |= {name: getattr(options, name) for name in ADDED}
    raw = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
    made = msgspec.json.decode(_ask(options, "", "POST", raw, ENGINE_S), type=AdminReplica)
    print(f"{made.id} serves {made.model}: {made.state}.")
    if made.message:
        print(made.message)
    return 0


def _drain(options: argparse.Namespace) -> int:
    import msgspec

    from scibox.wire.admin.replicas import AdminReplica

    for one in _found(options):
        raw = msgspec.json.encode(
            {"draining": options.is_draining, "force": options.is_draining and options.force}
        )
        now = msgspec.json.decode(_ask(options, f"/{one.id}", "PATCH", raw), type=AdminReplica)
        print(f"{now.id} of {now.model}: {now.state}, {now.in_flight} calls in flight.")
    return 0


def _remove(options: argparse.Namespace) -> int:
    import msgspec

    from scibox.wire.admin.replicas import AdminReplicaRemoved

    query = f"?now={str(options.now).lower()}&force={str(options.force).lower()}"
    for one in _found(options):
        raw = _ask(options, f"/{one.id}{query}", "DELETE")
        left = msgspec.json.decode(raw, type=AdminReplicaRemoved).in_flight
        print(f"{one.id} of {one.model} is removed; {left} calls in flight finish there.")
    return 0


def _found(options: argparse.Namespace) -> list[AdminReplica]:
    which = options.which.rstrip("/")
    found = [one for one in _listed(options).data if which in {one.id, one.url, one.model}]
    if not found:
        raise OperatorError(f"There is no replica '{which}'; see: scibox replicas list")
    return found


def _listed(options: argparse.Namespace) -> AdminReplicaList:
    import msgspec

    from scibox.wire.admin.replicas import AdminReplicaList

    return msgspec.json.decode(_ask(options, ""), type=AdminReplicaList)


def _ask(
    options: argparse.Namespace,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    within_s: float = 30.0,
) -> bytes:
    base, secret = operator.reach(options)
    return operator.ask(base, secret, PATH + path, method=method, body=body, within_s=within_s)
