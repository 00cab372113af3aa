"""A GenFilt server in a process of its own, which a test may kill and start again on the same port."""

import subprocess
import sys
from pathlib import Path

from servers import unused_port

PROGRAM = Path(__file__).parents[1] / "genfilt" / "words_server.py"


class Server:
    def __init__(self, *options: str) -> None:
        self.port = unused_port()
        self.address = f"127.0.0.1:{self.port}"
        self._options = options
        self.start()

    def start(self, *options: str) -> None:
        """Start it again. options: those that count from now on; none: as before."""
        self._options = options or self._options
        command = [sys.executable, str(PROGRAM), "--port", str(self.port), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"ready {self.address}\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
