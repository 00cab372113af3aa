"""How every command of this project ends.

Exit status: 0 done; 1 a QuerylifeError (one line on stderr, no traceback), or a reader of stdout that left; 2 a
ConfigError or bad usage; 130 Ctrl-C.
"""

import os
import sys
from collections.abc import Callable

from querylife.errors import ConfigError, QuerylifeError


def run_command(name: str, command: Callable[[], int], report: Callable[[QuerylifeError], object] | None = None) -> int:
    """Run a command and return its exit status. report: says what went wrong; by default one line on stderr."""
    try:
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `querylife embed ... | head`
        _drop_stdout()
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    except QuerylifeError as error:
        return _failed(name, error, report)
    except ExceptionGroup as group:  # of tasks that ran side by side: the first error stands for all
        expected, unexpected = group.split(QuerylifeError)
        if expected is None or unexpected is not None:
            raise
        return _failed(name, _first(expected), report)


def _failed(name: str, error: QuerylifeError, report: Callable[[QuerylifeError], object] | None) -> int:
    if report is None:
        print(f"{name}: {error}", file=sys.stderr)
    else:
        report(error)
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, which the line above names
        _drop_stdout()
    return 2 if isinstance(error, ConfigError) else 1


def _first(group: ExceptionGroup[QuerylifeError]) -> QuerylifeError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _drop_stdout() -> None:
    """What is left in its buffer cannot be written, and Python would try again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
