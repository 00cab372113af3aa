"""The `querylife` command finds its verbs by entry points, and the core names no package above it."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import EntryPoint, distribution, entry_points
from pathlib import Path
from typing import Any

import pytest

from querylife import __main__ as command_line

ROOT = Path(__file__).parents[2]
VERBS = entry_points(group=command_line.GROUP)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_is_a_function_whose_docstring_says_what_it_does(
    verb: EntryPoint, capsys: pytest.CaptureFixture[str]
) -> None:
    function: Callable[..., Any] = verb.load()
    assert function.__doc__
    assert command_line.main(["--help"]) == 0
    usage = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [verb.name, function.__doc__.splitlines()[0]] in usage


def test_each_verb_names_an_extra_that_exists() -> None:
    extras = distribution("querylife").metadata.get_all("Provides-Extra") or []
    assert len(VERBS) >= 9
    assert all(len(verb.extras) == 1 and verb.extras[0] in extras for verb in VERBS)


def test_a_verb_whose_packages_are_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = EntryPoint("index", "querylife_elsewhere.commands:main [stores]", command_line.GROUP)
    monkeypatch.setattr(command_line, "entry_points", lambda group: [missing])
    assert command_line.main(["index"]) == 1
    assert capsys.readouterr().err == (
        "querylife index: found no querylife_elsewhere, want it: pip install 'querylife[stores]'\n"
    )


def test_an_installation_without_verbs_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "entry_points", lambda group: [])
    assert command_line.main(["serve"]) == 2
    assert "found no verbs in this environment" in capsys.readouterr().err


def test_the_wheel_registers_the_same_verbs(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run([*command, "--quiet", "--disable-pip-version-check"], check=True)
    (wheel,) = tmp_path.glob("querylife-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        registered = archive.read(name).decode()
    section = registered.partition(f"[{command_line.GROUP}]\n")[2].partition("\n\n")[0].splitlines()
    assert sorted(line for line in section if line) == sorted(f"{verb.name} = {verb.value}" for verb in VERBS)
