"""Queries of the demo are a file's lines or the text itself; what is neither is refused."""

import pytest

from querylife.errors import ConfigError, InputFileError
from querylife_gateway.demo.command import _queries


def test_more_queries_than_a_file_name_may_be_long_are_queries():
    assert _queries("; ".join(["red dress for a summer evening"] * 20)) == ["red dress for a summer evening"] * 20


@pytest.mark.parametrize("text", ["querys.txt", " ; ", ""])
def test_a_file_that_is_not_there_and_no_query_at_all_are_refused(text):
    with pytest.raises((ConfigError, InputFileError)):
        _queries(text)
