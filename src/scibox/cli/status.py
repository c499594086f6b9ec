"""`scibox status`: what a running service says of itself, for a person at a terminal."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scibox.core.errors import OperatorError

from . import parts

if TYPE_CHECKING:
    from scibox.config import Config
    from scibox.wire.admin.status import Status

Commands = Any  # argparse's type of it is private
WITHIN_S = 10.0


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """The command."""
    status = commands.add_parser("status", parents=[common], help="say how the running service is")
    status.add_argument("--key", help="an operator's key (default: $SCIBOX_KEY)")
    status.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    config = parts.config(options)
    secret = options.key or os.environ.get("SCIBOX_KEY") or os.environ.get("SCIBOX_API_KEY")
    if not secret:
        return parts.fail("Which key? Give an operator's with --key, or in SCIBOX_KEY.", status=2)
    status = ask(address(config, os.environ), secret)
    show(status)
    return 0 if status.status == "ok" else 1


def address(config: Config, environ: Mapping[str, str]) -> str:
    """Where the service is: $SCIBOX_BASE_URL (as clients have it), or as configured."""
    if base := environ.get("SCIBOX_BASE_URL"):
        return base.rstrip("/").removesuffix("/v1")
    return config.server.url


def ask(base: str, secret: str) -> Status:
    """The status of the service there; OperatorError says why there is none."""
    import ssl
    import urllib.error
    import urllib.request

    import msgspec

    from scibox.wire.admin.status import Status

    if not base.startswith(("http://", "https://")):
        raise OperatorError(f"SCIBOX_BASE_URL is {base!r}: it begins with http:// or https://")
    headers = {"Authorization": f"Bearer {secret}"}
    request = urllib.request.Request(f"{base}/admin/v1/status", headers=headers)  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=WITHIN_S) as answer:  # noqa: S310
            return msgspec.json.decode(answer.read(), type=Status)
    except urllib.error.HTTPError as error:
        with error:
            raise OperatorError(_told(error.read(), error.code)) from None
    except ssl.SSLError as error:
        raise OperatorError(
            f"{base} has a certificate that does not hold here ({error.reason}); set SCIBOX_BASE_URL to the "
            "name it is made for."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise OperatorError(
            f"Nobody answers at {base} ({reason}): is the service running? SCIBOX_BASE_URL says where it is."
        ) from None


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


def _told(body: bytes, code: int) -> str:
    """The message of an error, where it is one of ours."""
    import json

    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return f"The service answered with status {code} and no word of why: is this a SciBox?"
