"""LangChain's and Haystack's own clients, unmodified, embed and rerank through the gateway."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gateway_process import RunningGateway

from querylife_client import Client
from querylife_client.testing import FakeTriton

PYTHON = Path(__file__).parents[2] / ".venv-clients" / "bin" / "python"  # an environment of its own: 125 MB
SCRIPT = Path(__file__).with_name("foreign_clients.py")
QUIET = {"HAYSTACK_TELEMETRY_ENABLED": "False", "LANGSMITH_TRACING": "false", "NO_PROXY": "127.0.0.1"}


@pytest.mark.skipif(not PYTHON.exists(), reason="found no .venv-clients: make clients-environment")
@pytest.mark.parametrize("library", ["langchain", "haystack"])
def test_vectors_and_rankings_are_the_gateways(library: str, gateway: RunningGateway, fake_triton: FakeTriton) -> None:
    command = [str(PYTHON), str(SCRIPT), gateway.url, library]
    ended = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    with Client(fake_triton.address) as client:
        np.testing.assert_allclose(found["vector"], client.embed_queries(["red dress"])[0], atol=1e-6)
    assert found["ranking"] == [1, 2]
