"""Write requirements/images/*.lock: what each image installs, cut out of requirements/triton.lock by the extras' needs.

.venv/bin/python deploy/docker/locks.py
"""

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements" / "images"
# image -> extras of querylife, and packages that go in without what they ask for
IMAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "triton": (("server",), ("nvidia-pytriton", "editdistpy")),  # editdistpy: symspellpy does not say that it needs it
    "triton-gpu": (("server",), ("editdistpy",)),
    "gateway": (("gateway", "images", "client", "stores"), ()),
    "jobs": (("jobs", "images", "client", "stores"), ()),
}


def lock(image: str) -> list[str]:
    """Lines of one image's lock, sorted."""
    pinned = {_normal(line.partition("==")[0]): line for line in _lines(ROOT / "requirements" / "triton.lock")}
    extras, alone = IMAGES[image]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    wanted += [Requirement(text) for extra in extras for text in project["optional-dependencies"][extra]]
    names = _closure(wanted, set(pinned)) | _closure([Requirement("hatchling")], set(pinned)) | set(alone)
    return sorted((pinned[name] for name in names), key=str.lower)


def _closure(wanted: list[Requirement], pinned: set[str]) -> set[str]:
    """Names of these packages and of all that they need and that triton.lock does not leave out, as installed here."""
    names: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = _normal(requirement.name)
        if name not in pinned or name in names:
            continue
        names.add(name)
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if any(needed.marker is None or needed.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                wanted.append(needed)
    return names


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for image in IMAGES:
        (FOLDER / f"{image}.lock").write_text("\n".join(lock(image)) + "\n")


if __name__ == "__main__":
    main()
