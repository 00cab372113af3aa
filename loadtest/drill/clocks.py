"""Wall clocks that a drill may set: of one process and its children, by libfaketime; monotonic clocks stay as they are.

Linux has no namespace for CLOCK_REALTIME, and setting the machine's own would harm everything else on it.
"""

from importlib.metadata import distribution
from pathlib import Path

READ_EVERY_S = 1  # how soon the processes notice


class WallClock:
    """file: says how far the clock is from the machine's; written here, read by the processes."""

    def __init__(self, file: Path) -> None:
        """Raises PackageNotFoundError where libfaketime is not installed."""
        self._file = file
        # The wheel's is newer than Debian 12's, under which Python's sleep fails.
        self._library = distribution("libfaketime").locate_file("libfaketime/vendor/libfaketime/src/libfaketime.so.1")
        self.set(0)

    @property
    def environment(self) -> list[str]:
        """NAME=value, for `env`."""
        return [
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            f"FAKETIME_CACHE_DURATION={READ_EVERY_S}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            f"LD_PRELOAD={self._library}",
        ]

    def set(self, ahead_s: int) -> None:
        """Show the machine's time plus ahead_s from READ_EVERY_S on."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead_s:+d}")
        written.rename(self._file)
