"""docs/explanation/walk.md names the files that a query and a photo go through, and no other."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from noted_files import OF_A_BACKEND, noted_files
from servers import REPOSITORY, ROOT, start_triton, stop_triton

from querylife_client import Client, Product

WALK = ROOT / "docs" / "explanation" / "walk.md"
PHOTO = ROOT / "docs" / "images" / "search-page.png"
OURS = ("querylife", "client")
MODELS = {
    "query": ("embed_query",),
    "photo": ("embed_product", "decode_image", "vision_tower", "fusion_tower"),  # a title goes the query's way
}
MOST_FILES = {"query": 26, "photo": 24}


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The files that a query and a photo go through: those of the client, of the backends, and Triton's configs."""
    folder = tmp_path_factory.mktemp("walk")
    repository = folder / "model_repository"
    shutil.copytree(REPOSITORY, repository, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for backend in repository.glob("*/1/model.py"):
        backend.write_text(backend.read_text() + OF_A_BACKEND.format(folder=str(Path(__file__).parent)))
    server = start_triton(folder / "server.log", "--repository", str(repository))
    try:
        calls: dict[str, Callable[[Client], object]] = {
            "query": lambda client: client.embed_queries(["red dress"]),
            "photo": lambda client: client.embed_products([Product(image=PHOTO)]),
        }
        files = {name: files_of_client(server.address, call) for name, call in calls.items()}
    finally:
        stop_triton(server)
    for name, models in MODELS.items():
        for model in models:
            files[name] |= files_of_model(repository, model)
    return files


def files_of_client(address: str, call: Callable[[Client], object]) -> set[str]:
    with Client(address) as client, noted_files() as files:
        call(client)
    return {ours for file in files if (ours := relative(Path(file), ROOT))}


def files_of_model(repository: Path, model: str) -> set[str]:
    cpu, common = repository / model / "configs" / "cpu.pbtxt", repository / model / "config.pbtxt"
    files = {f"model_repository/{(cpu if cpu.exists() else common).relative_to(repository)}"}
    log = repository / model / "1" / "files.txt"
    for line in log.read_text().splitlines() if log.exists() else []:
        file = Path(line)
        if file.is_relative_to(repository):
            files.add(f"model_repository/{file.relative_to(repository)}")
        elif ours := relative(file, ROOT):
            files.add(ours)
    return files


def relative(file: Path, root: Path) -> str:
    """ "" for a file that is none of ours."""
    path = file.relative_to(root).as_posix() if file.is_relative_to(root) else ""
    return path if path.startswith(tuple(f"{folder}/" for folder in OURS)) else ""


def named(subject: str) -> list[str]:
    """The files in the table under a heading of the page."""
    section = re.search(rf"^## The walk of a {subject}\n(.*?)(?=^## |\Z)", WALK.read_text(), re.MULTILINE | re.DOTALL)
    assert section, subject
    return re.findall(r"^\| \d+ \| `([^`]+)` \|", section[1], re.MULTILINE)


@pytest.mark.parametrize("subject", MODELS)
def test_the_page_names_every_file_that_runs_once(walks, subject):
    files = named(subject)
    assert len(files) == len(set(files))
    assert set(files) == walks[subject]


@pytest.mark.parametrize("subject", MODELS)
def test_the_walk_is_short(walks, subject):
    assert len(walks[subject]) <= MOST_FILES[subject]
