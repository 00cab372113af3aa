"""Descriptions on file, so that a judge can be fitted again without generating again."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from genfilt_server.generation.pipeline import Generated, Generator, Usage


class ClosableGenerator(Generator, Protocol):
    def close(self, timeout_s: float) -> None: ...


class RecordedGenerator:
    """Implements Generator for texts: answers from a file of JSON Lines where that has the prompt, and adds to it.

    made_by: what answers depend on beside the prompt; those of another make are left alone. start: called when the
    first answer is missing.
    """

    reads_images = False

    def __init__(self, path: Path, made_by: str, start: Callable[[], ClosableGenerator]) -> None:
        self._path, self._made_by, self._start = path, made_by, start
        self._generator: ClosableGenerator | None = None
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        known = [record for record in map(json.loads, lines) if record["made_by"] == made_by]
        self._known = {each["prompt"]: Generated(each["text"], each["confidence"], Usage()) for each in known}

    async def generate(self, prompt: str, image: bytes | None) -> Generated:
        if prompt not in self._known:
            self._generator = self._generator or self._start()
            found = self._known[prompt] = await self._generator.generate(prompt, None)
            record = {"made_by": self._made_by, "prompt": prompt, **asdict(found)}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        return self._known[prompt]

    def close(self, timeout_s: float) -> None:
        if self._generator is not None:
            self._generator.close(timeout_s)
