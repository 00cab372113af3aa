"""What a killed server leaves behind is ended, whatever part of it is gone already."""

import psutil

from genfilt_server.process_reaper import end


class Process:
    """One that was there when it was noted."""

    def __init__(self, *started: "Process", is_gone: bool = False) -> None:
        self.started, self.is_gone = started, is_gone
        self.is_killed = False

    def children(self, recursive: bool) -> list["Process"]:
        assert recursive
        return list(self.started)

    def kill(self) -> None:
        if self.is_gone:
            raise psutil.NoSuchProcess(0)
        self.is_killed = True


def test_a_child_that_ends_by_itself_saves_neither_its_siblings_nor_its_parent() -> None:
    ended, other = Process(is_gone=True), Process()
    parent, next_one = Process(ended, other), Process()
    end([parent, next_one])  # type: ignore[list-item]
    assert parent.is_killed
    assert other.is_killed
    assert next_one.is_killed
