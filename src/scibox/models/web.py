"""How this machine reaches the web: proxies from the environment, certificates, and secrets that stay home."""

from __future__ import annotations

import importlib.util
import ssl
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit


class _SecretsStayHome(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but shows `Authorization` to no other host than the one it is for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if following is not None and not _same_origin(req.full_url, newurl):
            following.remove_header("Authorization")
        return following


class _HeadStaysHome(_SecretsStayHome):
    """Follows redirects on the same host only: what a hub declares of a file is in its own answer."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request, None at the door of another host."""
        if not _same_origin(req.full_url, newurl):
            return None
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.method = req.get_method()
        return following


def opener(
    environ: Mapping[str, str], certificates: Path | None = None, *, stay_home: bool = False
) -> urllib.request.OpenerDirector:
    """Return an opener; `certificates` is a bundle to trust instead of the usual ones."""
    redirects = _HeadStaysHome() if stay_home else _SecretsStayHome()
    https = urllib.request.HTTPSHandler(context=_context(environ, certificates))
    return urllib.request.build_opener(redirects, https)


def _context(environ: Mapping[str, str], certificates: Path | None) -> ssl.SSLContext:
    """Trust what the operator named; else the system's certificates and those that come with pip."""
    context = ssl.create_default_context()  # OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR itself
    if certificates is not None:
        context.load_verify_locations(certificates)
    elif not (environ.get("SSL_CERT_FILE") or environ.get("SSL_CERT_DIR")):
        # A slim system may have no certificates at all, but it has pip, and pip brings some.
        pip = importlib.util.find_spec("pip")
        bundle = Path(pip.origin).parent / "_vendor/certifi/cacert.pem" if pip and pip.origin else None
        if bundle is not None and bundle.is_file():
            context.load_verify_locations(bundle)
    return context


def _same_origin(one: str, other: str) -> bool:
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.hostname, first.port) == (second.scheme, second.hostname, second.port)
