"""What commands ask of a running service, as an operator."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scibox.core.errors import OperatorError

from . import parts

if TYPE_CHECKING:
    from scibox.config import Config

WITHIN_S = 10.0


def add_key(parser: argparse.ArgumentParser) -> None:
    """The option that says with which key."""
    parser.add_argument("--key", help="an operator's key (default: $SCIBOX_KEY)")


def reach(options: argparse.Namespace) -> tuple[str, str]:
    """Where the service is, and the operator's secret."""
    secret = options.key or os.environ.get("SCIBOX_KEY") or os.environ.get("SCIBOX_API_KEY")
    if not secret:
        raise OperatorError("Which key? Give an operator's with --key, or in SCIBOX_KEY.")
    return address(parts.config(options), os.environ), secret


def address(config: Config, environ: Mapping[str, str]) -> str:
    """Where the service is: $SCIBOX_BASE_URL (as clients have it), or as configured."""
    if base := environ.get("SCIBOX_BASE_URL"):
        return base.rstrip("/").removesuffix("/v1")
    return config.server.url


def ask(
    base: str,
    secret: str,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    within_s: float = WITHIN_S,
) -> bytes:
    """What the service answers; OperatorError says why there is no answer."""
    import ssl
    import urllib.error
    import urllib.request

    if not base.startswith(("http://", "https://")):
        raise OperatorError(f"SCIBOX_BASE_URL is {base!r}: it begins with http:// or https://")
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    request = urllib.request.Request(  # noqa: S310 - checked above
        f"{base}{path}", body, headers, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=within_s) as answer:  # noqa: S310
            return bytes(answer.read())
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


def _told(body: bytes, code: int) -> str:
    """The message of an error, where it is one of ours."""
    import json

    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        return f"The service answered with status {code} and no word of why: is this a SciBox?"
