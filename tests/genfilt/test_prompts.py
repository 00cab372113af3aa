"""Prompts and schemas are versioned: their text and their version change together, and examples satisfy the schema."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from genfilt_server.generation.prompts import (
    FEW_SHOT,
    PROMPTS,
    SCHEMA_VERSION,
    Description,
    schema,
    schema_pattern,
    spell,
)

ROOT = Path(__file__).parents[2]
DIGESTS = {  # of what a version says; when one of these tests fails, raise the version
    "few-shot-v1": "932c056cdb93",
    "tuned-v1": "5c02114efb6b",
    "description-v1": "dbc0de6c8ad3",
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("version", sorted(PROMPTS))
def test_a_prompt_does_not_change_under_its_version(version: str) -> None:
    prompt = PROMPTS[version]
    assert digest(prompt.of_title("title", "type") + prompt.of_query("query")) == DIGESTS[version]


def test_the_schema_does_not_change_under_its_version() -> None:
    assert digest(json.dumps(schema())) == DIGESTS[SCHEMA_VERSION]


def test_every_example_satisfies_the_schema() -> None:
    examples = [json.loads(line) for line in FEW_SHOT.head.splitlines() if line.startswith("{")]
    assert len(examples) == 6
    properties = schema()["properties"]
    for example in examples:
        assert list(example) == schema()["required"]
        assert re.fullmatch(properties["product_type"]["pattern"].strip("^$"), example["product_type"])
        for name in ("colour", "gender", "use"):
            assert example[name] in properties[name]["enum"]
        assert spell(Description(**example)) in FEW_SHOT.head
        assert re.fullmatch(schema_pattern(), spell(Description(**example)))


@pytest.mark.parametrize(
    "text",
    [
        '{"product_type": "dress",\n"colour": "red", "gender": "men", "use": "home"}',
        '{"product_type": "Dress", "colour": "red", "gender": "men", "use": "home"}',
        '{"product_type": "dress", "colour": "reddish", "gender": "men", "use": "home"}',
        '{"product_type": "dress", "colour": "red", "gender": "men"}',
        '{"product_type": "dress", "colour": "red", "gender": "men", "use": "home", "price": 3}',
    ],
)
def test_what_the_schema_forbids_the_decoder_cannot_say(text: str) -> None:
    assert not re.fullmatch(schema_pattern(), text)


def test_the_head_is_shared_so_that_it_is_cached_once() -> None:
    assert FEW_SHOT.of_title("a").startswith(FEW_SHOT.head)
    assert FEW_SHOT.of_query("b").startswith(FEW_SHOT.head)


def test_the_committed_python_matches_the_proto(tmp_path: Path) -> None:
    proto = "genfilt_protocol/genfilt.proto"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, proto], cwd=ROOT, check=True)
    for name in ("genfilt_pb2.py", "genfilt_pb2.pyi", "genfilt_pb2_grpc.py"):
        written = (tmp_path / "genfilt_protocol" / name).read_text()
        assert written == (ROOT / "genfilt_protocol" / name).read_text(), "run: make genfilt-proto"
