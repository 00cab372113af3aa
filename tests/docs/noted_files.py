"""Notes the files whose functions run, in this process or in one of Triton's backends."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from types import FrameType

# Appended to a backend's model.py: files.txt beside it gets the files whose functions run while it answers.
OF_A_BACKEND = """
import sys
from pathlib import Path

sys.path.insert(0, {folder!r})
from noted_files import noted_files

class TritonPythonModel(TritonPythonModel):
    def execute(self, requests):
        with noted_files() as files:
            responses = super().execute(requests)
        with Path(__file__).with_name("files.txt").open("a") as log:
            log.writelines(file + "\\n" for file in files)
        return responses
"""


@contextlib.contextmanager
def noted_files() -> Iterator[set[str]]:
    """The files of every function that runs within the block, in this thread and in those that start there."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            # Not the code's own name, which is "<string>" for what a dataclass generates.
            files.add(frame.f_globals.get("__file__") or frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # typeshed forgets None
