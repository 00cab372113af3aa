"""API keys: several, hashed at rest, revocable while the gateway runs, each with its quota."""

import subprocess
import sys

import pytest
from gateway_process import running_gateway

from querylife.errors import InputFileError
from querylife_client.testing.faults import await_condition
from querylife_gateway.admission import Quotas
from querylife_gateway.errors import HttpError
from querylife_gateway.keys import ApiKey, KeyRing, create_key, read_keys, revoke_key

BODY = {"input": ["red dress", "blue dress"]}


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "keys.json"


def test_keys_are_asked_for_known_and_revoked_while_the_gateway_runs(fake_triton, key_file, tmp_path):
    shop, partner = create_key(key_file, "shop", 0), create_key(key_file, "partner", 3)
    with (
        running_gateway(fake_triton.address, tmp_path / "gateway.log", "--keys", str(key_file)) as gateway,
        gateway.client() as http,
    ):
        for headers in ({}, bearer("ql_wrong"), {"authorization": "Basic abc"}, {"authorization": "Bearer"}):
            refused = http.post("/v1/embeddings", json=BODY, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
        assert http.get("/v1/models").status_code == 401
        assert http.get("/metrics").status_code == 401
        assert http.get("/live").status_code == 200
        assert http.post("/v1/embeddings", json=BODY, headers=bearer(shop)).status_code == 200

        assert http.post("/v1/embeddings", json=BODY, headers=bearer(partner)).status_code == 200
        over = http.post("/v1/embeddings", json=BODY, headers=bearer(partner))
        assert over.status_code == 429
        assert 1 <= int(over.headers["retry-after"]) <= 20
        never = http.post("/v1/embeddings", json={"input": ["a"] * 4}, headers=bearer(partner))
        assert never.status_code == 400
        assert never.json()["error"]["code"] == "quota_exceeded"

        revoke_key(key_file, "shop")
        assert await_condition(lambda: http.get("/v1/models", headers=bearer(shop)).status_code == 401, 60)
        assert http.get("/v1/models", headers=bearer(partner)).status_code == 200


def test_the_file_holds_no_key_and_only_its_owner_reads_it(key_file):
    secret = create_key(key_file, "shop", 0)
    assert secret not in key_file.read_text()
    assert secret.removeprefix("ql_") not in key_file.read_text()
    assert key_file.stat().st_mode & 0o077 == 0


def test_names_are_unique_among_valid_keys(key_file):
    create_key(key_file, "shop", 0)
    with pytest.raises(InputFileError, match="another name"):
        create_key(key_file, "shop", 0)
    revoke_key(key_file, "shop")
    create_key(key_file, "shop", 0)
    assert [key.revoked is None for key in read_keys(key_file)] == [False, True]
    with pytest.raises(InputFileError, match="no valid key"):
        revoke_key(key_file, "nobody")


def test_a_broken_file_leaves_the_keys_read_before_valid(key_file):
    now = [0.0]
    secret = create_key(key_file, "shop", 0)
    ring = KeyRing(key_file, clock=lambda: now[0])
    key_file.write_text("{")
    now[0] = 2.0
    assert ring.admit(f"Bearer {secret}").name == "shop"


def test_a_quota_fills_up_again():
    now = [0.0]
    quotas = Quotas(clock=lambda: now[0])
    key = ApiKey("shop", "", 60, "")
    quotas.take(key, 60)
    with pytest.raises(HttpError) as refused:
        quotas.take(key, 10)
    assert refused.value.headers["retry-after"] == "10"
    now[0] = 10.0
    quotas.take(key, 10)
    with pytest.raises(HttpError):
        quotas.take(key, 1)


def test_keys_from_the_command_line(key_file):
    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "querylife", "gateway", "keys", *arguments, "--file", str(key_file)],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    status, secret = command("add", "shop", "--items-per-minute", "6000")
    assert status == 0
    assert KeyRing(key_file).admit(f"Bearer {secret.strip()}").items_per_minute == 6000
    assert command("revoke", "shop")[0] == 0
    assert "revoked" in command("list")[1]
    assert command("revoke", "shop")[0] == 1
