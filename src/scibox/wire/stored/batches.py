"""`/v1/batches`: the request, the lines of an input file, the lines of results, the shapes of answers.

Source: OpenAI's API reference, "Batch", and its guide's examples of input, output and error lines.
"""

from __future__ import annotations

import codecs
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from scibox.core.batches import Batch, Problem, Status
from scibox.core.errors import InvalidRequest
from scibox.wire import body

MetadataKey = Annotated[str, Meta(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]


class OutputExpiresAfter(Struct, forbid_unknown_fields=True):
    """How long the result files are kept after they were made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


class BatchRequest(Struct):
    """Run the lines of a file in the background."""

    input_file_id: Annotated[
        str, Meta(min_length=1, max_length=256, description="Honoured. A file of purpose `batch`.")
    ]
    endpoint: Annotated[
        str, Meta(description="Honoured. The one endpoint of all lines, like `/v1/chat/completions`.")
    ]
    completion_window: Annotated[
        Literal["24h"], Meta(description="Honoured. What is not done by then is `expired`.")
    ]
    metadata: Annotated[
        Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)] | None,
        Meta(description="Honoured. 16 pairs, 64 and 512 characters; kept with the batch."),
    ] = None
    output_expires_after: Annotated[
        OutputExpiresAfter | None, Meta(description="Honoured. Of both result files.")
    ] = None


class BatchError(Struct):
    """What is wrong with a line of the input, or why the batch could not go on."""

    code: str
    message: str
    line: int | None
    param: str | None


class BatchErrors(Struct):
    """The first of them, at most 100."""

    data: list[BatchError]
    object: Literal["list"] = "list"


class RequestCounts(Struct):
    """Lines: of the input, recorded as answered, recorded as failed."""

    total: int
    completed: int
    failed: int


class BatchObject(Struct):
    """A batch. Times are Unix seconds; the result files appear when it has ended."""

    id: str
    endpoint: str
    input_file_id: str
    status: Status
    created_at: int
    expires_at: int
    request_counts: RequestCounts
    errors: BatchErrors | None
    output_file_id: str | None
    error_file_id: str | None
    metadata: dict[str, str] | None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    completion_window: Literal["24h"] = "24h"
    object: Literal["batch"] = "batch"


class BatchList(Struct):
    """A page of an owner's batches, newest first."""

    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class _Line(Struct):
    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: str
    url: str
    body: msgspec.Raw


class _Body(Struct):
    stream: msgspec.Raw = msgspec.Raw(b"null")


class _Recorded(Struct):
    custom_id: str


@dataclass(frozen=True, slots=True)
class Line:
    """One call of a batch, still as bytes."""

    custom_id: str
    body: bytes


class WrongLine(Exception):
    """A line of an input file that cannot be a call."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def at(self, number: int) -> Problem:
        """The same with the number of the line."""
        return Problem(self.code, self.message, number, self.param)


_requests = msgspec.json.Decoder(BatchRequest)
_lines = msgspec.json.Decoder(_Line)
_bodies = msgspec.json.Decoder(_Body)
_recorded = msgspec.json.Decoder(_Recorded)
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(raw: bytes, endpoints: Collection[str]) -> BatchRequest:
    """Bytes to a request for one of the `endpoints`; `InvalidRequest` names the field at fault."""
    request, fields = body.decode(raw, _requests)
    body.refuse_unknown(fields, frozenset(BatchRequest.__struct_fields__))
    if request.endpoint not in endpoints:
        raise InvalidRequest(f"'endpoint' must be one of {', '.join(sorted(endpoints))}.", param="endpoint")
    return request


def parse_line(raw: bytes, endpoint: str, limit_bytes: int) -> Line:
    """One line of an input file, or `WrongLine`; its body is checked when it runs."""
    if len(raw) > limit_bytes:
        raise WrongLine("line_too_long", f"This line is longer than {limit_bytes} bytes.")
    try:
        line = _lines.decode(raw.removeprefix(codecs.BOM_UTF8))  # Windows puts one before a file's first line
    except msgspec.ValidationError as error:
        raise WrongLine("invalid_line", f"This line is not a request: {error}.".replace("`", "'")) from None
    except _NO_JSON:
        raise WrongLine("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if line.method != "POST":
        raise WrongLine("invalid_method", "'method' must be 'POST'.", "method")
    if line.url != endpoint:
        raise WrongLine("invalid_url", f"'url' must be the batch's endpoint, '{endpoint}'.", "url")
    try:
        is_streamed = bytes(_bodies.decode(line.body).stream) == b"true"
    except _NO_JSON:
        raise WrongLine("invalid_body", "'body' must be a JSON object.", "body") from None
    if is_streamed:
        raise WrongLine(
            "stream_not_supported", "A line cannot be streamed; leave 'stream' out.", "body.stream"
        )
    return Line(line.custom_id, bytes(line.body))


def render_answered(result_id: str, custom_id: str, request_id: str, status: int, answer: bytes) -> bytes:
    """A line of the output file, or of the error file where the status is no success."""
    response = {"status_code": status, "request_id": request_id, "body": msgspec.Raw(_one_line(answer))}
    return _line(result_id, custom_id, response, None)


def render_unanswered(result_id: str, custom_id: str, code: str, message: str) -> bytes:
    """A line of the error file for a call that never ran."""
    return _line(result_id, custom_id, None, {"code": code, "message": message})


def custom_id(recorded: bytes) -> str:
    """Whose result a recorded line is; ValueError when it is no result."""
    try:
        return _recorded.decode(recorded).custom_id
    except _NO_JSON as error:
        raise ValueError("this is no line of results") from error


def render(batch: Batch) -> bytes:
    """One batch."""
    return msgspec.json.encode(_shape(batch))


def render_list(batches: Sequence[Batch], has_more: bool) -> bytes:
    """A page of batches."""
    ids = [batch.batch_id for batch in batches]
    return msgspec.json.encode(
        BatchList(
            [_shape(batch) for batch in batches], ids[0] if ids else None, ids[-1] if ids else None, has_more
        )
    )


def _line(result_id: str, custom_id: str, response: object, error: Mapping[str, str] | None) -> bytes:
    return msgspec.json.encode(
        {"id": result_id, "custom_id": custom_id, "response": response, "error": error}
    )


def _one_line(answer: bytes) -> bytes:
    """JSON has line ends between its tokens only: a space does as well."""
    return answer.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in answer or b"\r" in answer else answer


def _shape(batch: Batch) -> BatchObject:
    errors = [BatchError(p.code, p.message, p.line, p.param) for p in batch.problems]
    at = {status: int(at) for status, at in batch.reached.items()}
    return BatchObject(
        id=batch.batch_id,
        endpoint=batch.endpoint,
        input_file_id=batch.input_file_id,
        status=batch.status,
        created_at=int(batch.created_at),
        expires_at=int(batch.expires_at),
        request_counts=RequestCounts(batch.total, batch.completed, batch.failed),
        errors=BatchErrors(errors) if errors else None,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        metadata=None if batch.metadata is None else dict(batch.metadata),
        in_progress_at=at.get("in_progress"),
        finalizing_at=at.get("finalizing"),
        completed_at=at.get("completed"),
        failed_at=at.get("failed"),
        expired_at=at.get("expired"),
        cancelling_at=at.get("cancelling"),
        cancelled_at=at.get("cancelled"),
    )
