"""docs/guide/client.md: every Python example runs, from top to bottom, as a reader would run it."""

import re
from pathlib import Path
from typing import Any

from querylife_client import Client
from querylife_client.testing import FakeGenFilt, FakeTriton

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "client.md"


def test_every_example_runs_in_order(fake: FakeTriton, generator: FakeGenFilt) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) >= 8
    names: dict[str, Any] = {"address": fake.address}
    with Client(fake.address, genfilt=generator.address) as client:
        for example in examples:
            here = example.replace("127.0.0.1:8001", fake.address).replace("127.0.0.1:8010", generator.address)
            exec(compile(here, str(PAGE), "exec"), names)
            names["client"] = client


def test_the_error_tree_is_the_codes_own() -> None:
    from querylife_client import errors  # noqa: PLC0415

    named = re.findall(r"[├└]── (\w+)", PAGE.read_text())
    assert named
    assert all(issubclass(getattr(errors, name), errors.ServiceError) for name in named)
    assert errors.__doc__ is not None
    assert set(named) == set(re.findall(r"[├└]── (\w+)", errors.__doc__))
