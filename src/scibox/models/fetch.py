"""One file over HTTP into one place, however often the connection breaks.

Rules: bytes go to `<target>.part` and are appended, so that the next try, or the next process after a
`kill -9`, asks only for the rest (RFC 9110 section 14: Range, with If-Range where the server gave a strong
ETag). The digest of the whole is checked before the file gets its name. A wrong digest deletes the part; if
old bytes may be at fault, it is fetched once more from the start.
"""

from __future__ import annotations

import errno
import http.client
import random
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from scibox.models.catalogue import megabytes
from scibox.models.digest import BLOCK_BYTES, Digest
from scibox.models.errors import NoSpace, SourceFailed, WrongDigest
from scibox.models.progress import Progress
from scibox.models.web import Web

TRIES = 6  # in a row that bring nothing; a try that brings bytes starts the count again
FIRST_TRIES = 3  # before any byte came: an unreachable source should give way to the next one soon
LONGEST_WAIT_S = 30.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Job:
    """One file to fetch: from where, to where, what it must be, and its name for people."""

    url: str
    target: Path
    digest: Digest
    label: str

    @property
    def part(self) -> Path:
        """The bytes so far."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def tag(self) -> Path:
        """The server's ETag for the bytes so far."""
        return self.target.with_name(self.target.name + ".etag")


class _Broken(Exception):
    """This try failed, another may not."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def download(job: Job, web: Web, progress: Progress) -> Path:
    """Fetch `job.url` into `job.target`, continuing what is there; raises SourceFailed or NoSpace."""
    if job.target.exists():
        if job.digest.matches(job.target):
            return job.target
        job.target.unlink()
    job.target.parent.mkdir(parents=True, exist_ok=True)
    had_old_bytes = _size(job.part) > 0
    try:
        _whole(job, web, progress)
        if not job.digest.matches(job.part):
            discard(job)
            if not had_old_bytes:
                raise WrongDigest(
                    f"what arrived is not what the catalogue names (digest of {job.label} differs)"
                )
            progress.note(f"{job.label}: the earlier part was damaged; deleted, starting again")
            _whole(job, web, progress)
            if not job.digest.matches(job.part):
                discard(job)
                raise WrongDigest(
                    f"what arrived is not what the catalogue names (digest of {job.label} differs)"
                )
    except OSError as error:
        raise _as_space_or_failure(error, job.target.parent) from error
    job.part.replace(job.target)
    job.tag.unlink(missing_ok=True)
    return job.target


def discard(job: Job) -> None:
    """Delete what was fetched so far."""
    job.part.unlink(missing_ok=True)
    job.tag.unlink(missing_ok=True)


def _whole(job: Job, web: Web, progress: Progress) -> None:
    """Try until the server says it has sent everything; raises SourceFailed."""
    failures, tries = 0, FIRST_TRIES
    while True:
        before = _size(job.part)
        try:
            _try_once(job, web, progress)
            return
        except _Broken as broken:
            failures, tries = (1, TRIES) if _size(job.part) > before else (failures + 1, tries)
            if failures >= tries:
                raise SourceFailed(f"{broken}, {failures} times in a row") from broken
            wait_s = broken.wait_s if broken.wait_s is not None else _back_off(failures)
            progress.note(f"{job.label}: {broken}; trying again in {wait_s:.0f} s")
            web.sleep(wait_s)
        finally:
            progress.finish()


def _back_off(failures: int) -> float:
    """Seconds to wait after so many failures: 1, 2, 4, ... with jitter."""
    return min(LONGEST_WAIT_S, 2.0 ** (failures - 1)) * random.uniform(0.8, 1.2)  # noqa: S311  no secret


def _try_once(job: Job, web: Web, progress: Progress) -> None:
    """Ask for the rest and append it; raises _Broken where trying again makes sense."""
    have = _size(job.part)
    try:
        with web.open(_request(job, web, have)) as answer:
            have = _start_at(answer.headers, answer.status, have)
            _remember_tag(job, answer.headers)
            total = _total(answer.headers, have)
            progress.start(job.label, have, total)
            _append(job.part, answer, have, progress)
    except urllib.error.HTTPError as error:
        _refused(job, error, have)
        return
    except http.client.HTTPException as error:
        raise _Broken(f"the connection broke ({type(error).__name__})") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _lost(error) from error
    if total is not None and _size(job.part) < total:
        raise _Broken("the connection ended early")


def _lost(error: OSError) -> Exception:
    """Judge a connection that failed: only a certificate that is not trusted will stay so."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return SourceFailed(f"its certificate is not trusted ({reason.verify_message}); set SSL_CERT_FILE")
    return _Broken(f"no connection ({reason})")


def _request(job: Job, web: Web, have: int) -> urllib.request.Request:
    """Ask for the whole, or for the rest if it is still the same file."""
    # Compressed bytes would have another digest, and could not be continued.
    headers = {"Accept-Encoding": "identity", "User-Agent": "scibox", **web.headers}
    if have:
        headers["Range"] = f"bytes={have}-"
        if job.tag.exists():
            headers["If-Range"] = job.tag.read_text("ascii")
    return urllib.request.Request(job.url, headers=headers)  # noqa: S310  the scheme is checked by the source


def _refused(job: Job, error: urllib.error.HTTPError, have: int) -> None:
    """Judge an HTTP error: final, passing, or (416) a part that is already whole or too long."""
    error.close()
    if error.code == 416:
        stated = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if stated.isdigit() and int(stated) == have:
            return  # killed after the last byte and before the rename: it is all there
        discard(job)
        raise _Broken("the part does not fit the server's file, so it was deleted", wait_s=0.0)
    if error.code in PASSING:
        stated = error.headers.get("Retry-After") or ""
        wait_s = min(float(stated), LONGEST_WAIT_S) if stated.isdigit() else None
        raise _Broken(f"the server answered {error.code} {error.reason}", wait_s)
    raise SourceFailed(f"the server answered {error.code} {error.reason}")


def _start_at(headers: Message, status: int, have: int) -> int:
    """Where the answer's bytes belong: after what is there, or at 0 when the server sends the whole again."""
    if status != 206:
        return 0
    if (headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
        return have
    raise SourceFailed(f"the server answered another range: {headers.get('Content-Range')!r}")


def _total(headers: Message, have: int) -> int | None:
    """The size of the whole file, None when the server does not say."""
    stated = headers.get("Content-Length") or ""
    return have + int(stated) if stated.isdigit() else None


def _remember_tag(job: Job, headers: Message) -> None:
    """Keep a strong ETag for If-Range; a weak one may not be used there (RFC 9110 section 13.1.5)."""
    tag = headers.get("ETag") or ""
    if tag.startswith('"') and tag.isascii():
        job.tag.write_text(tag, "ascii")
    else:
        job.tag.unlink(missing_ok=True)


def _append(part: Path, answer: http.client.HTTPResponse, have: int, progress: Progress) -> None:
    """Write the answer's bytes behind the first `have` bytes of the part."""
    with part.open("ab") as stream:
        if stream.tell() != have:
            stream.truncate(have)
        while block := answer.read1(BLOCK_BYTES):
            stream.write(block)
            stream.flush()  # what was counted is what the next process finds
            progress.advance(len(block))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _as_space_or_failure(error: OSError, folder: Path) -> Exception:
    """Say a full disk as what it is; everything else is this source's failure."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(full(folder))
    return SourceFailed(str(error))


def full(folder: Path) -> str:
    """Say that the disk is full."""
    return f"the disk of {folder} is full; free some space and run the same command again (it continues)"


def check_space(folder: Path, needed_bytes: int, free_bytes: int) -> None:
    """Raise NoSpace when what will be fetched and made does not fit."""
    if needed_bytes > free_bytes:
        raise NoSpace(
            f"{folder} needs {needed_bytes:,} bytes free ({megabytes(needed_bytes)}) and has {free_bytes:,} "
            f"({megabytes(free_bytes)}); free some space, or choose another data folder (SCIBOX_DATA)"
        )
