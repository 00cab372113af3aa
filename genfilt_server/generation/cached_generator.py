"""Descriptions cached in a file, so that a judge can be fitted again without generating again."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from genfilt_server.generation.pipeline import Generated, Generator, Usage


class ClosableGenerator(Generator, Protocol):
    def close(self, timeout_s: float) -> None: ...


class CachedGenerator:
    """Implements Generator for texts. Answers from a JSON Lines file; generates and appends what is missing there.

    provenance: what answers depend on beside the prompt; records of another provenance are ignored. start: makes the
    generator when the first answer is missing.
    """

    reads_images = False

    def __init__(self, path: Path, provenance: str, start: Callable[[], ClosableGenerator]) -> None:
        self._path, self._provenance, self._start = path, provenance, start
        self._generator: ClosableGenerator | None = None
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        known = [record for record in map(json.loads, lines) if record["made_by"] == provenance]
        self._known = {each["prompt"]: Generated(each["text"], each["confidence"], Usage()) for each in known}

    async def generate(self, prompt: str, image: bytes | None) -> Generated:
        if prompt not in self._known:
            self._generator = self._generator or self._start()
            generated = self._known[prompt] = await self._generator.generate(prompt, None)
            record = {"made_by": self._provenance, "prompt": prompt, **asdict(generated)}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        return self._known[prompt]

    def close(self, timeout_s: float) -> None:
        if self._generator is not None:
            self._generator.close(timeout_s)
