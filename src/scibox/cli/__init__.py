"""The command line: serve, pull, models, keys, owners, check. Imports late, so that `--help` is quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from scibox import __version__
from scibox.core.errors import OperatorError

from . import keys, owners, parts, replicas, status, usage

DESCRIPTION = "One OpenAI-compatible address over your own models."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong use."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return parts.fail("Stopped.", status=130)
    except BrokenPipeError:
        return 0
    except OperatorError as error:
        return parts.fail(str(error))


def _parser() -> argparse.ArgumentParser:
    common = parts.common()
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

    keys.add(commands, common)
    owners.add(commands, common)
    usage.add(commands, common)
    replicas.add(commands, common)
    status.add(commands, common)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from scibox import app

    flags = {"server.host": options.host, "server.port": options.port}
    given = {k: v for k, v in flags.items() if v is not None}
    return app.serve(lambda: parts.config(options, given))


def _pull(options: argparse.Namespace) -> int:
    from scibox.core.names import nearest
    from scibox.models.catalogue import with_own
    from scibox.models.progress import progress_on
    from scibox.models.pull import pull
    from scibox.models.ready import verify

    config = parts.config(options)
    known, folder = with_own(config.catalogue), config.data / "models"
    status = 0
    for name in options.name:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean '{close}'?" if close else "see: scibox models"
            status = parts.fail(f"There is no model '{name}' in the catalogue; {hint}")
            continue
        weights = pull(known[name], folder, progress_on())
        problems = verify(name, folder) if options.verify else []
        for problem in problems:
            status = parts.fail(problem)
        if not problems:
            print(f"{name}: {'verified' if options.verify else 'ready'} in {weights.path}")
    return status


def _models(options: argparse.Namespace) -> int:
    from scibox.models.catalogue import render_table, with_own
    from scibox.models.ready import installed_names

    config = parts.config(options)
    print(render_table(with_own(config.catalogue), installed_names(config.data / "models")))
    return 0


def _check(options: argparse.Namespace) -> int:
    config = parts.config(options)
    where = config.source or "no file, so the built-in default"
    names = ", ".join(model.name for model in config.models)
    print(f"The configuration is right ({where}): {len(config.models)} models: {names}.")
    return 0
