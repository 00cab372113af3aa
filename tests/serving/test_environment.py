"""What the server's processes get from their environment."""

from pathlib import Path

import pytest

from querylife.serving.supervisor.installation import HUGE_PAGES, Installation

INSTALLATION = Installation(Path("tritonserver"), Path("backends"), Path("libraries"))


@pytest.mark.parametrize(("given", "want"), [(None, HUGE_PAGES), ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0")])
def test_backends_ask_for_huge_pages_unless_told_otherwise(monkeypatch, given, want):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    assert INSTALLATION.environment()["GLIBC_TUNABLES"] == want
