"""Client and AsyncClient are the same but for await: whoever knows one knows the other."""

import inspect

import pytest

from querylife_client import AsyncClient, Client

METHODS = [name for name in vars(Client) if not name.startswith("_")]


def test_both_have_the_same_methods() -> None:
    assert [name for name in vars(AsyncClient) if not name.startswith("_")] == METHODS


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_each_method_takes_the_same_arguments_and_promises_the_same(name: str) -> None:
    ours, theirs = getattr(Client, name), getattr(AsyncClient, name)
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)
    if callable(ours):
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
