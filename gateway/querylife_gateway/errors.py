"""What a caller over HTTP is told, and the status it goes with.

`from_exception` is the one place where the project's errors become HTTP statuses. The body has OpenAI's shape:
{"error": {"message", "type", "param", "code"}}.
"""

import logging
import math

from starlette.responses import JSONResponse

from querylife_client.errors import (
    CredentialsError,
    DeadlineExceededError,
    FingerprintMismatchError,
    InvalidRequestError,
    OverloadedError,
    QuerylifeError,
    ServerFaultError,
    UnavailableError,
)
from querylife_client.vector_store import StoreError

log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a caller that left; nobody reads it but the log and the metrics

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    499: "client_closed_request",
    500: "server_error",
    502: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}

# Most specific first.
_STATUSES: tuple[tuple[type[QuerylifeError], int], ...] = (
    (CredentialsError, 502),  # the gateway's own credentials, not the caller's
    (InvalidRequestError, 400),
    (DeadlineExceededError, 504),
    (OverloadedError, 429),
    (UnavailableError, 503),
    (ServerFaultError, 502),
    (FingerprintMismatchError, 503),  # until the index of the new model is there
    (StoreError, 503),
)


class HttpError(Exception):
    """An answer with an error status. retry_after_s: when the caller may try again. param: the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))

    def response(self) -> JSONResponse:
        """The answer, with an error body in OpenAI's shape."""
        error = {"message": self.message, "type": TYPES[self.status], "param": self.param, "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


def from_exception(error: Exception) -> HttpError:
    """The answer to a request that failed with this error."""
    if isinstance(error, HttpError):
        return error
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            wait_s = getattr(error, "retry_after_s", None) or 1.0
            return HttpError(status, str(error), retry_after_s=wait_s if status in (429, 503) else None)
    log.error("a request failed", exc_info=error)
    return HttpError(500, "the gateway failed; its log says more")
