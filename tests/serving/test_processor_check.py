"""A server on a processor that the towers were not gated on repeats the gate's answers before it is ready."""

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest
from servers import REPOSITORY, Triton, start_triton, stop_triton

from querylife.artifacts.processor import instruction_sets
from querylife.artifacts.repository_lock import LOCK_NAME, read_lock, write_lock
from querylife.serving.config import ServerConfig
from querylife.serving.supervisor.auth import Access
from querylife.serving.supervisor.processor_check import check_processor

ELSEWHERE = ("avx2",)
CPUINFO = """processor\t: 0
flags\t\t: fpu avx2 avx512f avx512_vnni
processor\t: 1
flags\t\t: fpu avx2 avx512f
"""


def config(triton: Triton) -> ServerConfig:
    return ServerConfig(grpc_port=int(triton.address.rpartition(":")[2]))


def gated(**changes):
    lock = read_lock(REPOSITORY / LOCK_NAME)
    assert lock.gate is not None
    return dataclasses.replace(lock, gate=dataclasses.replace(lock.gate, **changes))


def test_instruction_sets_are_those_of_every_core(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    assert instruction_sets(tmp_path / "cpuinfo") == ("avx2", "avx512f")
    assert instruction_sets(tmp_path / "missing") == ()


def test_the_gates_own_processor_needs_no_check(caplog):
    caplog.set_level(logging.INFO)
    nobody = ServerConfig(grpc_port=1)  # would be asked otherwise
    lock = gated(instruction_sets=instruction_sets())
    assert check_processor(nobody, lock, Access(nobody.access)) == ""
    assert not caplog.messages


def test_another_processor_answers_again(triton, caplog):
    caplog.set_level(logging.INFO)
    with Access(config(triton).access) as access:
        assert check_processor(config(triton), gated(instruction_sets=ELSEWHERE), access) == ""
    assert "the towers were gated on avx2" in caplog.messages[0]
    assert "answer as on the processor they were gated on" in caplog.messages[1]


def test_other_answers_are_a_fault(triton):
    lock = gated(instruction_sets=ELSEWHERE)
    moved = tuple(value + 0.01 for value in lock.gate.query_embedding)
    with Access(config(triton).access) as access:
        fault = check_processor(config(triton), gated(instruction_sets=ELSEWHERE, query_embedding=moved), access)
    assert "answer otherwise than on the processor they were gated on (avx2)" in fault
    assert "query_embedding differs" in fault


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REPOSITORY, tmp_path / "repository"))


def test_a_server_says_that_it_checks_before_it_is_ready(repository: Path, tmp_path: Path):
    write_lock(gated(instruction_sets=ELSEWHERE), repository / LOCK_NAME)
    log = tmp_path / "server.log"
    server = start_triton(log, "--repository", str(repository))
    stop_triton(server)
    said = log.read_text()
    assert said.index("gated on avx2") < said.index("answer as on the processor") < said.index("ready in")
