"""The command line: serve, pull, models, keys, check. Imports late, so that `--help` is quick."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scibox import __version__
from scibox.core.errors import OperatorError
from scibox.store.links import DatabaseAway

if TYPE_CHECKING:
    from scibox.config import Config
    from scibox.core.types import Key

DESCRIPTION = "One OpenAI-compatible address over your own models."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong use."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return _fail("Stopped.", status=130)
    except BrokenPipeError:
        return 0
    except OperatorError as error:
        return _fail(str(error))
    except DatabaseAway as error:
        return _fail(
            f"The database does not work now ({error}): look to its server, or without one to the data "
            "folder's permissions and its disk."
        )


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", type=Path, help="configuration (default: $SCIBOX_CONFIG)")
    common.add_argument("--data", metavar="FOLDER", type=Path, help="keys and weights (default: the user's)")
    parser = argparse.ArgumentParser("scibox", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"scibox {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", parents=[common], help="run the service")
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default: 4000)")
    serve.set_defaults(run=_serve)

    pull = commands.add_parser("pull", parents=[common], help="fetch the weights of a model")
    pull.add_argument("name", nargs="+", help="a name from `scibox models`")
    pull.add_argument("--verify", action="store_true", help="check every byte of weights that are there")
    pull.set_defaults(run=_pull)

    models = commands.add_parser("models", parents=[common], help="list the models that can be fetched")
    models.set_defaults(run=_models)

    check = commands.add_parser("check", parents=[common], help="check the configuration")
    check.set_defaults(run=_check)

    keys = commands.add_parser("keys", help="create, list and revoke API keys")
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", parents=[common], help="make a key; its secret is shown once")
    create.add_argument("name", help="what the key is for")
    create.add_argument("--owner", help="team or person it belongs to (default: the name)")
    create.add_argument("--days", type=float, help="days until it expires (default: never)")
    create.add_argument("--model", action="append", help="allow only this model; may be repeated")
    create.add_argument("--operator", action="store_true", help="an operator's key")
    create.set_defaults(run=_create_key)
    listing = actions.add_parser("list", parents=[common], help="list the keys")
    listing.set_defaults(run=_list_keys)
    revoke = actions.add_parser("revoke", parents=[common], help="revoke keys; within a second")
    revoke.add_argument("key_id", nargs="+", help="an id from `scibox keys list`")
    revoke.set_defaults(run=_revoke_keys)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from scibox import app

    flags = {"server.host": options.host, "server.port": options.port}
    return app.serve(_config(options, {k: v for k, v in flags.items() if v is not None}))


def _pull(options: argparse.Namespace) -> int:
    from scibox.core.names import nearest
    from scibox.models.catalogue import with_own
    from scibox.models.progress import progress_on
    from scibox.models.pull import pull
    from scibox.models.ready import verify

    config = _config(options)
    known, folder = with_own(config.catalogue), config.data / "models"
    status = 0
    for name in options.name:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean '{close}'?" if close else "see: scibox models"
            status = _fail(f"There is no model '{name}' in the catalogue; {hint}")
            continue
        weights = pull(known[name], folder, progress_on())
        problems = verify(name, folder) if options.verify else []
        for problem in problems:
            status = _fail(problem)
        if not problems:
            print(f"{name}: {'verified' if options.verify else 'ready'} in {weights.path}")
    return status


def _models(options: argparse.Namespace) -> int:
    from scibox.models.catalogue import render_table, with_own
    from scibox.models.ready import installed_names

    config = _config(options)
    print(render_table(with_own(config.catalogue), installed_names(config.data / "models")))
    return 0


def _check(options: argparse.Namespace) -> int:
    config = _config(options)
    where = config.source or "no file, so the built-in default"
    names = ", ".join(model.name for model in config.models)
    print(f"The configuration is right ({where}): {len(config.models)} models: {names}.")
    return 0


def _create_key(options: argparse.Namespace) -> int:
    import time

    from scibox.service import admin
    from scibox.store.keys import KeyStore

    config = _config(options)
    if options.days is not None and options.days <= 0:
        return _fail("--days takes a number above 0.", status=2)
    names = {model.name for model in config.models}
    for name in options.model or ():
        if name not in names:
            return _fail(f"There is no model '{name}'; --model takes one of: {', '.join(sorted(names))}.", 2)
    with KeyStore(config.place("keys")) as store:
        key, secret = admin.create_key(
            store,
            owner=options.owner or options.name,
            name=options.name,
            now=time.time(),
            role="operator" if options.operator else "member",
            days=options.days,
            models=options.model,
        )
    print(secret)
    print(
        f"{key.key_id} for {key.owner}. The secret is shown only now: hand it over safely.", file=sys.stderr
    )
    return 0


def _list_keys(options: argparse.Namespace) -> int:
    import time

    from scibox.store.keys import KeyStore

    with KeyStore(_config(options).place("keys")) as store:
        keys = store.all()
    if not keys:
        print("There are no keys yet; make one with: scibox keys create NAME", file=sys.stderr)
        return 0
    rows = [("KEY", "OWNER", "NAME", "ROLE", "SECRET", "STATE"), *(_row(key, time.time()) for key in keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(key: Key, now: float) -> tuple[str, ...]:
    from datetime import UTC, datetime

    state = "active"
    if key.revoked_at is not None:
        state = "revoked"
    elif key.is_expired(now):
        state = "expired"
    elif key.expires_at is not None:
        state = f"until {datetime.fromtimestamp(key.expires_at, UTC):%Y-%m-%d %H:%M} UTC"
    return (key.key_id, key.owner, key.name, key.role, f"...{key.last_four}", state)


def _revoke_keys(options: argparse.Namespace) -> int:
    import time

    from scibox.service.revocation import Revocation
    from scibox.store.keys import KeyStore
    from scibox.store.revoked import Revoked, is_listable

    config, status = _config(options), 0
    wanted = [key_id for key_id in options.key_id if is_listable(key_id)]
    with KeyStore(config.place("keys")) as store:
        done = Revocation(store, Revoked(config.data / "revoked")).revoke(wanted, time.time())
    for key in done.keys:
        print(f"{key.key_id} of {key.owner} is revoked.")
    if done.waits_for is not None:
        print(
            f"The database does not work now ({done.waits_for}). The service of this data folder refuses "
            f"{', '.join(wanted)} from now on all the same, and tells the database when it is back."
        )
    for key_id in [*done.unknown, *(set(options.key_id) - set(wanted))]:
        status = _fail(f"There is no key '{key_id}'; see: scibox keys list")
    return status


def _config(options: argparse.Namespace, flags: dict[str, str | int] | None = None) -> Config:
    from scibox.config import load

    overrides: dict[str, str | int | None] = dict(flags or {})
    if options.data is not None:
        overrides["data"] = str(options.data)
    return load(options.config, os.environ, overrides)


def _fail(message: str, status: int = 1) -> int:
    print(f"scibox: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
