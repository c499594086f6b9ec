"""Files of a Hugging Face hub (or a mirror of one: HF_ENDPOINT), with HF_TOKEN where one is set."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from email.message import Message
from pathlib import Path
from urllib.parse import quote

from scibox.models.catalogue import HUB, File, HuggingFace
from scibox.models.digest import Digest
from scibox.models.errors import SourceFailed
from scibox.models.fetch import Job, download
from scibox.models.progress import Progress
from scibox.models.web import Web

DEFAULT_ENDPOINT = "https://huggingface.co"


def fetch_files(source: HuggingFace, downloads: Path, web: Web, progress: Progress) -> dict[str, Path]:
    """Fetch every file of the source; returns where each one lies, by its ready name."""
    if web.environ.get("HF_HUB_OFFLINE", "0").lower() in {"1", "true", "yes", "on"}:
        raise SourceFailed("HF_HUB_OFFLINE is set")
    if secret := web.environ.get("HF_TOKEN", "").strip():
        web = replace(web, headers={**web.headers, "Authorization": f"Bearer {secret}"})
    return {file.name: _fetch(source, file, downloads, web, progress) for file in source.files}


def _fetch(source: HuggingFace, file: File, downloads: Path, web: Web, progress: Progress) -> Path:
    url = address(source, file, web.environ)
    digest = Digest(file.sha256) if file.sha256 != HUB else declared(url, web)
    try:
        return download(Job(url, downloads / digest.hex, digest, Path(file.path).name), web, progress)
    except SourceFailed as failure:
        raise type(failure)(f"{failure} ({url})") from failure


def address(source: HuggingFace, file: File, environ: Mapping[str, str]) -> str:
    """Return the address of a file at the source's revision."""
    endpoint = (environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise SourceFailed(f"HF_ENDPOINT is not an http(s) address: {endpoint}")
    return f"{endpoint}/{source.hugging_face}/resolve/{quote(source.revision, safe='')}/{quote(file.path)}"


def declared(url: str, web: Web) -> Digest:
    """Ask the hub for the digest it declares: SHA-256 of a large file, git's blob name of a small one."""
    request = urllib.request.Request(url, method="HEAD", headers=dict(web.headers))  # noqa: S310  see address
    try:
        with web.open(request, stay_home=True) as answer:
            headers: Message = answer.headers
    except urllib.error.HTTPError as error:
        if not 300 <= error.code < 400:
            raise SourceFailed(f"the hub answered {error.code} {error.reason} ({url})") from error
        headers = error.headers  # a redirect to where the bytes lie; what it is was said here
    except OSError as error:
        raise SourceFailed(f"no connection ({getattr(error, 'reason', None) or error}) ({url})") from error
    tag = (headers.get("X-Linked-ETag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    if re.fullmatch(r"[0-9a-f]{64}", tag):
        return Digest(tag)
    if re.fullmatch(r"[0-9a-f]{40}", tag):
        return Digest(tag, "git-blob")
    raise SourceFailed(f"the hub declares no digest ({url})")
