"""Core sharing between towers: a tower that runs alone uses all cores."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CoreSharing:
    """What the processes of all towers of one repository know of each other: a running tower holds a shared lock.

    Nobody waits for the lock, and the kernel releases it when a process dies.
    """

    def __init__(self, folder: Path) -> None:
        """folder: any folder, the same for all towers."""
        self._lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def running(self) -> Iterator[bool]:
        """A run of this tower. True where no other tower runs as it begins."""
        is_alone = self._try(fcntl.LOCK_EX)
        self._try(fcntl.LOCK_SH)
        try:
            yield is_alone
        finally:
            self._try(fcntl.LOCK_UN)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except OSError:  # held by others; or a file system without locks, on which no tower is ever alone
            return False
        return True
