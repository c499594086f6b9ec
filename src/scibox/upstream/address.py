"""Where a replica listens: `unix:/path/engine.sock` or `http(s)://host:port/prefix`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A place to connect to; `prefix` goes before every path (`/v1` for most)."""

    host: str
    port: int
    prefix: str
    is_tls: bool = False
    socket: str | None = None  # a Unix socket's path, instead of host and port
    headers: tuple[tuple[str, str], ...] = ()  # that every request there carries

    @classmethod
    def parse(cls, url: str) -> Address:
        """From a URL, or from `unix:` and a path (its prefix is `/v1`)."""
        if url.startswith("unix:"):
            return cls("localhost", 0, "/v1", socket=url[5:])
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"not an http or https address: {url}")
        port = parts.port or _PORTS[parts.scheme]
        return cls(parts.hostname, port, parts.path.rstrip("/"), is_tls=parts.scheme == "https")

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host
            if self.socket or self.port == _PORTS["https" if self.is_tls else "http"]
            else f"{host}:{self.port}"
        )

    def __str__(self) -> str:
        """As it stands in the ledger."""
        return f"unix:{self.socket}" if self.socket else f"{self.authority}{self.prefix}"

    @property
    def root(self) -> str:
        """The prefix without its `/v1`: where servers keep `/health` and `/tokenize`."""
        return self.prefix.removesuffix("/v1")
