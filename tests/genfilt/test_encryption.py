"""With a certificate, callers who check it are served, and callers without TLS are not."""

import asyncio
import datetime
import ipaddress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from words_server import hosted

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_protocol import genfilt_pb2_grpc
from genfilt_server.auth import Token
from genfilt_server.config import ServerConfig


def self_signed(folder: Path) -> tuple[Path, Path]:
    """PEM files of a certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "genfilt")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, *kinds))
    return certificate, private


def test_a_renewed_certificate_and_token_count_without_a_restart(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("genfilt_server.auth.RENEWAL_S", 0.0)
    certificate, key = self_signed(tmp_path)
    (tmp_path / "renewed").mkdir()
    new_certificate, new_key = self_signed(tmp_path / "renewed")
    token = tmp_path / "token"
    token.write_text("old")
    request = pb.DescribeRequest(products=[pb.Product(title=b"red dress")])

    async def describe(address: str, trusted: bytes, secret: str) -> None:
        credentials = grpc.ssl_channel_credentials(trusted)
        metadata = (("authorization", f"Bearer {secret}"),)
        async with grpc.aio.secure_channel(address, credentials) as channel:
            await genfilt_pb2_grpc.GenFiltStub(channel).Describe(request, timeout=300, metadata=metadata)

    async def scenario() -> None:
        config = ServerConfig(port=0, tls_certificate=certificate, tls_key=key)
        old = certificate.read_bytes()
        async with hosted(config, token=Token.read(token)) as server:
            await describe(server.address, old, "old")
            token.write_text("new")
            await describe(server.address, old, "new")
            with pytest.raises(grpc.aio.AioRpcError, match="no valid bearer token"):
                await describe(server.address, old, "old")
            token.write_text("")
            await describe(server.address, old, "new")  # the last one that could be read
            key.write_bytes(new_key.read_bytes())
            await describe(server.address, old, "new")  # its certificate is still to come
            certificate.write_bytes(new_certificate.read_bytes())
            await describe(server.address, new_certificate.read_bytes(), "new")
            with pytest.raises(grpc.aio.AioRpcError):
                await describe(server.address, old, "new")

    asyncio.run(scenario())


def test_callers_connect_anew_after_a_time() -> None:
    async def scenario() -> None:
        config = ServerConfig(port=0, max_connection_age_s=0.5)
        async with hosted(config) as server, grpc.aio.insecure_channel(server.address) as channel:
            await channel.channel_ready()
            await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.READY), 60)
            request = pb.DescribeRequest(products=[pb.Product(title=b"red dress")])
            await genfilt_pb2_grpc.GenFiltStub(channel).Describe(request, timeout=300)

    asyncio.run(scenario())


def test_calls_are_encrypted(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    request = pb.DescribeRequest(products=[pb.Product(title=b"red dress")])

    async def scenario() -> None:
        async with hosted(ServerConfig(port=0, tls_certificate=certificate, tls_key=key)) as server:
            trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
            async with grpc.aio.secure_channel(server.address, trusted) as channel:
                response = await genfilt_pb2_grpc.GenFiltStub(channel).Describe(request, timeout=300)
            assert response.results[0].description.product_type == "dress"
            async with grpc.aio.insecure_channel(server.address) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await genfilt_pb2_grpc.GenFiltStub(channel).Describe(request, timeout=300)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())
