"""A package that sets the root logger up for itself silences nobody else."""

import logging

from querylife.logs import kept_logging


def test_levels_and_handlers_are_as_before():
    root = logging.getLogger()
    before = root.level, list(root.handlers), [handler.level for handler in root.handlers]
    with kept_logging():
        root.setLevel(logging.ERROR)
        for handler in root.handlers:
            handler.setLevel(logging.ERROR)
        root.addHandler(logging.NullHandler())
    assert (root.level, root.handlers, [handler.level for handler in root.handlers]) == before
