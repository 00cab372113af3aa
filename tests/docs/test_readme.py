"""What README.md and docs/ say is true: examples run, targets and files exist."""

import re
import subprocess
from pathlib import Path

import pytest
from servers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def test_the_client_example_ranks_the_dress_first(triton, capsys):
    for example in blocks("python"):
        exec(compile(example.replace("127.0.0.1:8001", triton.address), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("Floral midi dress")
    assert lines[1].endswith("Leather belt")


def test_the_folder_table_is_the_top_level():
    table = set(re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE))
    folders = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")}
    assert table == folders - {"requirements"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_named_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"`?\bmake ([a-z][a-z-]+)\b", " ".join(re.findall(r"`[^`]*`|^make .*$", page.read_text(), re.M))
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_every_python_script_named_exists():
    for page in PAGES:
        for script in re.findall(r"\b((?:loadtest|build|jobs|tests|deploy)/[\w/]+\.py)\b", page.read_text()):
            assert (ROOT / script).exists(), f"{page.name}: {script}"


def test_no_path_of_any_machine_is_tracked():
    pattern = re.compile(r"(?<![\w./-])/(?:root|home/\w+|work|farm)/")
    for path in tracked():
        file = ROOT / path
        if file.suffix in {".safetensors"} or path == Path(__file__).relative_to(ROOT).as_posix():
            continue
        assert not pattern.search(file.read_text(errors="replace")), path
