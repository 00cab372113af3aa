"""Errors, sorted by who must act.

QuerylifeError
├── ContractError              fix the code: parts disagree about names, dtypes, shapes
├── ConfigError                fix the command line or the settings: an option has an impossible value (exit status 2)
├── ArtifactError              rebuild: a checkpoint, encoder or model repository is missing, damaged or mixed up
│   └── ParityError            rebuild: an exported tower answers differently from the eager one
├── InputFileError             fix the file: a catalogue or query file cannot be read as documented
├── FingerprintMismatchError   embed again: vectors of two models were about to be combined
└── ServiceError
    ├── InvalidRequestError    change the request
    │   └── ItemError          change one item of it; its neighbours are unharmed
    ├── DeadlineExceededError  allow more time, or shed load
    ├── UnavailableError       retry
    │   └── OverloadedError    retry later, and send less: the server is full
    └── ServerFaultError       report it
"""

from enum import StrEnum


class QuerylifeError(Exception):
    """Anything this project raises on purpose."""


class ContractError(QuerylifeError):
    """Two parts of the program disagree about a tensor or a model."""


class ConfigError(QuerylifeError, ValueError):
    """An option, an argument or a setting has a value that cannot work. Commands exit with status 2."""


class ArtifactError(QuerylifeError):
    """A checkpoint, a starting encoder or a model repository cannot be used."""


class ParityError(ArtifactError):
    """An exported tower does not reproduce the eager tower."""


class InputFileError(QuerylifeError):
    """A file that the user named cannot be read as documented."""


class FingerprintMismatchError(QuerylifeError):
    """Vectors of two models would be combined, which gives meaningless scores.

    subject: what was compared, for example "stored vectors". found, want: the fingerprints of the two models, "" where
    a model is unknown.
    """

    def __init__(self, subject: str, found: str, want: str) -> None:
        super().__init__(f"{subject}: found model {found or 'unknown'}, want model {want or 'unknown'}")
        self.subject = subject
        self.found = found
        self.want = want

    def __reduce__(self) -> tuple[type["FingerprintMismatchError"], tuple[str, str, str]]:
        """Pickle all three arguments, so that the error can cross processes."""
        return type(self), (self.subject, self.found, self.want)


class ServiceError(QuerylifeError):
    """A call to a server did not produce its answer."""


class InvalidRequestError(ServiceError):
    """The request can never succeed as it is."""


class DeadlineExceededError(ServiceError):
    """No answer within the caller's time."""


class UnavailableError(ServiceError):
    """The server is away, starting or full; the same request may succeed later."""


class OverloadedError(UnavailableError):
    """The server is up, but full. retry_after_s: when there will be room, where the server says so."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerFaultError(ServiceError):
    """The server failed although the request was right."""


class ItemFault(StrEnum):
    """What can be wrong with one query or one product."""

    TEXT_NOT_UTF8 = "text_not_utf8"
    TEXT_TOO_LONG = "text_too_long"
    QUERY_EMPTY = "query_empty"
    PRODUCT_EMPTY = "product_empty"
    IMAGE_NOT_DECODABLE = "image_not_decodable"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_TOO_MANY_BYTES = "image_too_many_bytes"
    IMAGE_TOO_MANY_PIXELS = "image_too_many_pixels"
    IMAGE_TOO_SLOW = "image_too_slow"


class ItemError(InvalidRequestError):
    """One query or product of a request is at fault.

    fault says what kind, detail says what was found and what is wanted. Travels between server and client as
    "fault: detail", in an output tensor beside the results.
    """

    def __init__(self, fault: ItemFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail

    def __reduce__(self) -> tuple[type["ItemError"], tuple[ItemFault, str]]:
        """Pickled, to reach other processes, with both arguments; an exception's own way knows only the message."""
        return type(self), (self.fault, self.detail)

    @classmethod
    def parse(cls, text: str) -> "ItemError":
        """Read "fault: detail" back. Raises ValueError for an unknown fault."""
        fault, _, detail = text.partition(": ")
        return cls(ItemFault(fault), detail)
