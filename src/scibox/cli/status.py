"""`scibox status`: what a running service says of itself, for a person at a terminal."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import operator, parts

if TYPE_CHECKING:
    from scibox.wire.admin.status import Status

Commands = Any  # argparse's type of it is private


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The command."""
    status = commands.add_parser("status", parents=[common], help="say how the running service is")
    operator.add_key(status)
    status.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import msgspec

    from scibox.wire.admin.status import Status

    base, secret = operator.reach(options)
    status = msgspec.json.decode(operator.ask(base, secret, "/admin/v1/status"), type=Status)
    show(status)
    return 0 if status.status == "ok" else 1


def show(status: Status) -> None:
    """First what is broken, then facts."""
    verdict = {"ok": "All is well.", "degraded": "Calls are answered, but not all is well:"}
    print(verdict.get(status.status) or " ".join(["Calls are not answered.", *status.hurdles]))
    for one in status.broken:
        since = f" (since {one.since})" if one.since else ""
        words = one.message.replace("\n", "\n      ")
        print(f"  {one.part}{since}\n      {words}")
    minutes, seconds = divmod(int(status.uptime_s), 60)
    hours, minutes = divmod(minutes, 60)
    uptime = f"up {hours} h {minutes} min {seconds} s"
    print(f"\nSciBox {status.version}, {uptime}, {status.calls_in_flight} calls in flight\n")
    rows = [("MODEL", "ANSWERS", "SLOTS IN USE", "WAITING")]
    rows += [
        (one.name, "yes" if one.can_answer else "no", f"{one.running} of {one.slots}", str(one.waiting))
        for one in status.models
    ]
    parts.print_table(rows)
