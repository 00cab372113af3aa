"""Free shared memory, which tensors of the Python backends pass through."""

import logging
import os
from pathlib import Path

from querylife.errors import ArtifactError

log = logging.getLogger(__name__)

MIB = 2**20
LEAST_BYTES = 32 * MIB  # twelve backend processes begin with 1 MiB each, and small requests soon triple that
AMPLE_BYTES = 256 * MIB  # requests of 64 long texts or pictures, in every step at once


def check_shared_memory(folder: Path) -> None:
    """Raise ArtifactError where a server could not start, and warn where it would have to refuse large requests."""
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise ArtifactError(f"{folder}: found no shared memory, want {_mib(AMPLE_BYTES)} free: {error}") from error
    free = status.f_bavail * status.f_frsize
    message = f"{folder}: found {_mib(free)} free, want {_mib(AMPLE_BYTES)} (docker run --shm-size=256m)"
    if free < LEAST_BYTES:
        raise ArtifactError(f"{message}, and at least {_mib(LEAST_BYTES)}")
    if free < AMPLE_BYTES:
        log.warning("%s: large requests may fail", message)


def _mib(size: int) -> str:
    return f"{size // MIB} MiB"
