"""`scibox status`: what a running service says of itself, for a person at a terminal."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping

import msgspec

from scibox.config import Config
from scibox.core.errors import OperatorError
from scibox.wire.admin.status import Status

WITHIN_S = 10.0


class _Body(msgspec.Struct):
    message: str


class _Error(msgspec.Struct):
    error: _Body


def address(config: Config, environ: Mapping[str, str]) -> str:
    """Where the service is: $SCIBOX_BASE_URL (as clients have it), or as configured."""
    if base := environ.get("SCIBOX_BASE_URL"):
        return base.rstrip("/").removesuffix("/v1")
    return config.server.url


def ask(base: str, secret: str) -> Status:
    """The status of the service there; OperatorError says why there is none."""
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


def render(status: Status) -> str:
    """A few lines: first what is broken, then facts."""
    verdict = {"ok": "All is well.", "degraded": "Calls are answered, but not all is well:"}
    lines = [verdict.get(status.status) or " ".join(["Calls are not answered.", *status.hurdles])]
    for one in status.broken:
        since = f" (since {one.since})" if one.since else ""
        words = one.message.replace("\n", "\n      ")
        lines.append(f"  {one.part}{since}\n      {words}")
    minutes, seconds = divmod(int(status.uptime_s), 60)
    hours, minutes = divmod(minutes, 60)
    uptime = f"up {hours} h {minutes} min {seconds} s"
    facts = f"SciBox {status.version}, {uptime}, {status.calls_in_flight} calls in flight"
    lines += ["", facts, "", *_table(status)]
    return "\n".join(lines)


def _table(status: Status) -> list[str]:
    rows = [("MODEL", "ANSWERS", "SLOTS IN USE", "WAITING")]
    rows += [
        (one.name, "yes" if one.can_answer else "no", f"{one.running} of {one.slots}", str(one.waiting))
        for one in status.models
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _told(body: bytes, code: int) -> str:
    try:
        return msgspec.json.decode(body, type=_Error).error.message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"The service answered with status {code} and no word of why: is this a SciBox?"
