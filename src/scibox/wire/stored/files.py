"""`/v1/files`: the form of an upload, and what is answered (OpenAI's API reference, "Files")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import InvalidRequest
from scibox.core.files import File
from scibox.wire import body

from .multipart import Form

PURPOSE = "batch"
OUTPUT_PURPOSE = "batch_output"
LIFETIME_S = (3600, 2_592_000)  # one hour to 30 days
MOST_NAME_BYTES = 255
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"


class FileObject(Struct):
    """A stored file. Times are Unix seconds."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    expires_at: int | None = None
    object: Literal["file"] = "file"
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(Struct):
    """A page of an owner's files."""

    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class FileDeleted(Struct):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileUpload(Struct):
    """A file to store; the form's part `file` must have a file name."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    purpose: Literal["batch"]
    anchor: Literal["created_at"] | None = msgspec.field(name=_ANCHOR, default=None)
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)] | None = msgspec.field(name=_SECONDS, default=None)


@dataclass(frozen=True, slots=True)
class Upload:
    """What an upload's form says beside the content."""

    name: str
    purpose: str
    lifetime_s: float | None


def parse(form: Form) -> Upload:
    """A whole form to what it says; `InvalidRequest` names the field at fault."""
    body.refuse_unknown(form.fields, {"purpose", _ANCHOR, _SECONDS})
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise InvalidRequest("Missing field 'purpose'.", param="purpose")
    if purpose != PURPOSE:
        raise InvalidRequest(
            f"Files are stored for batches only: 'purpose' must be '{PURPOSE}'.", param="purpose"
        )
    name = form.filename or ""
    if not name or len(name.encode()) > MOST_NAME_BYTES or not name.isprintable():
        raise InvalidRequest(
            f"The file needs a name of at most {MOST_NAME_BYTES} bytes, without control characters.",
            param="file",
        )
    return Upload(name, purpose, _lifetime_s(form.fields))


def disposition(name: str) -> str:
    """`Content-Disposition` for a download under that name (RFC 6266; RFC 8187 for what is not ASCII)."""
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def render(file: File) -> bytes:
    """One file."""
    return msgspec.json.encode(_shape(file))


def render_list(files: Sequence[File], has_more: bool) -> bytes:
    """A page of files."""
    ids = [file.file_id for file in files]
    return msgspec.json.encode(
        FileList(
            [_shape(file) for file in files], ids[0] if ids else None, ids[-1] if ids else None, has_more
        )
    )


def render_deleted(file_id: str) -> bytes:
    """A file that is gone."""
    return msgspec.json.encode(FileDeleted(file_id))


def _shape(file: File) -> FileObject:
    return FileObject(
        id=file.file_id,
        bytes=file.size_bytes,
        created_at=int(file.created_at),
        filename=file.name,
        purpose="batch" if file.purpose == PURPOSE else "batch_output",
        expires_at=None if file.expires_at is None else int(file.expires_at),
    )


def _lifetime_s(fields: Mapping[str, str]) -> float | None:
    if _ANCHOR not in fields and _SECONDS not in fields:
        return None
    if fields.get(_ANCHOR) != "created_at":
        raise InvalidRequest(f"'{_ANCHOR}' must be 'created_at'.", param=_ANCHOR)
    text, (low, high) = fields.get(_SECONDS, ""), LIFETIME_S
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and low <= int(text) <= high):
        raise InvalidRequest(f"'{_SECONDS}' must be a whole number from {low} to {high}.", param=_SECONDS)
    return float(text)
