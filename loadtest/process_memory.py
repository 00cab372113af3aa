"""Memory of processes, with the pages that several of them share counted once (proportional set size)."""

import contextlib
from collections.abc import Iterable

import psutil


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started; nobody, once it has ended."""
    with contextlib.suppress(psutil.Error):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


def megabytes(processes: Iterable[psutil.Process]) -> float:
    """Of all of them, in units of 10^6 bytes. One that ends meanwhile counts nothing."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 1e6
