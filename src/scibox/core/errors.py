"""Errors: raised low, translated once at each border, rendered once in OpenAI's shape.

`status` is the HTTP status, `type` and `code` are OpenAI's words for programs, `param` names the field
at fault, and the message tells a person what to do next. `retry_after_s` becomes `Retry-After`.
"""

from __future__ import annotations

from typing import ClassVar


class SciBoxError(Exception):
    """Anything that ends a call and that its caller should read."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: str = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = (
            should_retry  # OpenAI's clients obey `x-should-retry`; None: they decide by status
        )
        if code is not None:
            self.code = code

    def hide(self, secret: str | None) -> None:
        """Take an upstream's key out of the message: some servers quote what they were sent."""
        if secret:
            self.message = self.message.replace(secret, "[hidden]")


class InvalidRequest(SciBoxError):
    """The input is wrong; the same input will be wrong again."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class ContextTooLong(InvalidRequest):
    """The prompt and the requested completion do not fit into the model's context."""

    code = "context_length_exceeded"


class Unauthorized(SciBoxError):
    """No key, a wrong key, an expired or revoked key."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(SciBoxError):
    """A good key that may not do this."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class Conflict(SciBoxError):
    """What is asked contradicts what is there."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class IdempotencyKeyReused(InvalidRequest):
    """An `Idempotency-Key` comes again with another body (draft-ietf-httpapi-idempotency-key-header-07, 2.7).

    422, not 409: OpenAI's clients try a 409 again.
    """

    status = 422
    code = "idempotency_key_reused"


class RateLimited(SciBoxError):
    """A rate limit: the same call succeeds later."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QuotaExceeded(SciBoxError):
    """The quota of the day or the month is used up."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class Busy(SciBoxError):
    """The call would wait for its turn longer than its caller would, or the queue is full."""

    status = 429
    type = "rate_limit_error"
    code = "queue_too_long"


class KeysUnavailable(SciBoxError):
    """A key that is not known here, while the database that may know it is away."""

    status = 503
    code = "keys_unavailable"


class ModelNotFound(SciBoxError):
    """No such model for this key."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class NotFound(SciBoxError):
    """No such path or object."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(SciBoxError):
    """The path exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class BodyTooLarge(InvalidRequest):
    """The request body is over the configured size."""

    status = 413
    code = "request_too_large"


class UnsupportedMedia(InvalidRequest):
    """The body is packed or written in a way that is not read here."""

    status = 415
    code = "unsupported_media_type"


class RequestTimeout(SciBoxError):
    """The request did not come fast enough."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class HeadTooLarge(InvalidRequest):
    """The request's headers are larger than any client needs."""

    status = 431
    code = "headers_too_large"


class UpstreamBroken(SciBoxError):
    """The model server answered with something that is not an answer, or broke off."""

    status = 502
    type = "server_error"
    code = "upstream_error"


class UpstreamLost(UpstreamBroken):
    """The model server closed the connection before the first byte of an answer."""

    code = "upstream_broke_off"


class UpstreamUnavailable(SciBoxError):
    """The model server cannot be reached now."""

    status = 503
    type = "server_error"
    code = "upstream_unavailable"


class UpstreamBusy(UpstreamUnavailable):
    """The model server takes no calls for a while: after `opens_in_s`, where it has said when."""

    code = "upstream_busy"
    opens_in_s: float | None = None


class UpstreamMisconfigured(SciBoxError):
    """The model server refuses the gateway itself: its key or the model's name there is wrong."""

    status = 503
    type = "server_error"
    code = "upstream_misconfigured"


class UpstreamTimeout(SciBoxError):
    """The model server took longer than a deadline allows."""

    status = 504
    type = "server_error"
    code = "upstream_timeout"


class Draining(SciBoxError):
    """The service is stopping: running calls finish, new ones are refused."""

    status = 503
    code = "draining"


class StorageUnavailable(SciBoxError):
    """The disk or a database does not work now: for files, batches, reports, or for entries of new calls."""

    status = 503
    code = "storage_unavailable"


class OperatorError(Exception):
    """Something the person at the terminal can mend; its text is a sentence that says how."""
