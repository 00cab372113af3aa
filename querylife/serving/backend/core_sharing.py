"""Whether other towers compute at this moment: one that is alone may use every processor."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Company:
    """What the processes of all towers of one repository know of each other: who computes holds a shared lock.

    Nobody waits for it, and the kernel takes it from a process that dies.
    """

    def __init__(self, folder: Path) -> None:
        """folder: any that all towers name."""
        self._lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def computing(self) -> Iterator[bool]:
        """True where nobody else computes as the block begins."""
        alone = self._try(fcntl.LOCK_EX)
        self._try(fcntl.LOCK_SH)
        try:
            yield alone
        finally:
            self._try(fcntl.LOCK_UN)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except OSError:  # held by others; or a file system without locks, on which nobody is ever alone
            return False
        return True
