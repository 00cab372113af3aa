"""API keys: many, each with a name and a quota, hashed at rest, revocable while the gateway runs.

The file is JSON: {"keys": [{"name", "sha256", "items_per_minute", "created", "revoked"}]}. It holds the SHA-256 of each
key, never the key. A plain hash is enough, because a key is 256 random bits and cannot be guessed as a password can.
"""

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from querylife.errors import InputFileError
from querylife_gateway.errors import HttpError

log = logging.getLogger(__name__)

PREFIX = "ql_"
RECHECK_S = 1.0
COOKIE = "querylife_key"


@dataclass(frozen=True)
class ApiKey:
    """items_per_minute: texts, documents and pictures; 0: no limit. created, revoked: ISO 8601."""

    name: str
    sha256: str
    items_per_minute: int
    created: str
    revoked: str | None = None


ANYBODY = ApiKey("anybody", "", 0, "")  # where the gateway has no key file


def create_key(path: Path, name: str, items_per_minute: int) -> str:
    """Add a key to the file, which is made where there is none. Returns the key, which is nowhere else to be had.

    Raises InputFileError where a valid key has this name.
    """
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name and key.revoked is None for key in keys):
        raise InputFileError(f"{path}: found a valid key {name!r}, want another name, or revoke it first")
    secret = PREFIX + secrets.token_urlsafe(32)
    write_keys(path, [*keys, ApiKey(name, _sha256(secret), items_per_minute, _now())])
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Raises InputFileError where no valid key has this name."""
    keys = read_keys(path)
    if not any(key.name == name and key.revoked is None for key in keys):
        raise InputFileError(f"{path}: found no valid key {name!r}")
    now = _now()
    write_keys(path, [replace(k, revoked=now) if k.name == name and k.revoked is None else k for k in keys])


def read_keys(path: Path) -> list[ApiKey]:
    """Raises InputFileError."""
    try:
        return [ApiKey(**entry) for entry in json.loads(path.read_text("utf-8"))["keys"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(f"{path}: cannot be read as a file of API keys: {error}") from error


def write_keys(path: Path, keys: list[ApiKey]) -> None:
    """Written under another name first; only the owner may read it."""
    unfinished = path.with_name(path.name + ".part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps({"keys": [asdict(key) for key in keys]}, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)


class KeyRing:
    """The keys that are valid now. Looks at the file once a second: a revoked key ends without a restart."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises InputFileError where the file cannot be read."""
        self._path = path
        self._clock = clock
        self._stamp: tuple[int, int] | None = None
        self._valid: dict[str, ApiKey] = {}
        self._checked_at = clock()
        if path is not None:
            self._load(path)

    @property
    def is_open(self) -> bool:
        """Whether callers need no key."""
        return self._path is None

    def admit(self, authorization: str | None, cookie: str | None = None) -> ApiKey:
        """The key that a caller shows as "Bearer KEY", or the page in its cookie. Raises HttpError 401."""
        if self._path is None:
            return ANYBODY
        self._recheck(self._path)
        scheme, _, secret = (authorization or "").partition(" ")
        shown = secret.strip() if scheme.lower() == "bearer" else cookie or ""
        key = self._valid.get(_sha256(shown))
        if key is None:
            message = "found no valid API key, want the header `Authorization: Bearer KEY`"
            raise HttpError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        return key

    def _recheck(self, path: Path) -> None:
        if self._clock() - self._checked_at < RECHECK_S:
            return
        self._checked_at = self._clock()
        try:
            self._load(path)
        except (InputFileError, OSError) as error:  # half edited by hand: the last good keys stay valid
            log.error("%s; the keys read before stay valid", error)

    def _load(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError as error:
            raise InputFileError(f"{path}: cannot be read: {error}") from error
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._valid = {key.sha256: key for key in read_keys(path) if key.revoked is None}
            self._stamp = stamp


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
