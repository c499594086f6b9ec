"""How this machine reaches the web: proxies, certificates, and secrets that are shown to no other host."""

from __future__ import annotations

import http.client
import importlib.util
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

TIMEOUT_S = 30.0  # without a byte; a slow line is no failure


class _SecretsStayHome(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but shows `Authorization` to no other host than the one it is for."""

    def redirect_request(  # noqa: PLR0917  the standard library's signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request."""
        following = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if following is not None and not _same_origin(req.full_url, newurl):
            following.remove_header("Authorization")
        return following


class _HeadStaysHome(_SecretsStayHome):
    """Follows redirects on the same host only: what a hub declares of a file is in its own answer."""

    def redirect_request(  # noqa: PLR0917  the standard library's signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request, None at the door of another host."""
        if not _same_origin(req.full_url, newurl):
            return None
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.method = req.get_method()
        return following


@dataclass(frozen=True, slots=True)
class Web:
    """The way to the web, and the waiting between tries; proxies come from the environment."""

    environ: Mapping[str, str]
    certificates: Path | None = None  # a bundle to trust instead of the usual ones
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S
    sleep: Callable[[float], None] = time.sleep

    def open(self, request: urllib.request.Request, *, stay_home: bool = False) -> http.client.HTTPResponse:
        """Send a request; with `stay_home` a redirect to another host is an HTTPError."""
        redirects = _HeadStaysHome() if stay_home else _SecretsStayHome()
        https = urllib.request.HTTPSHandler(context=self._context())
        answer = urllib.request.build_opener(redirects, https).open(request, timeout=self.timeout_s)
        if not isinstance(answer, http.client.HTTPResponse):  # urllib knows ftp too
            raise urllib.error.URLError("redirected to an address that is not http(s)")
        return answer

    def _context(self) -> ssl.SSLContext:
        """Trust what the operator named; else the system's certificates and those that come with pip."""
        context = ssl.create_default_context()  # OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR itself
        if self.certificates is not None:
            context.load_verify_locations(self.certificates)
        elif not (self.environ.get("SSL_CERT_FILE") or self.environ.get("SSL_CERT_DIR")):
            # A slim system may have no certificates at all, but it has pip, and pip brings some.
            pip = importlib.util.find_spec("pip")
            bundle = Path(pip.origin).parent / "_vendor/certifi/cacert.pem" if pip and pip.origin else None
            if bundle is not None and bundle.is_file():
                context.load_verify_locations(bundle)
        return context


def _same_origin(one: str, other: str) -> bool:
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.hostname, first.port) == (second.scheme, second.hostname, second.port)
