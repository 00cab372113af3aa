"""Connection settings for a server with TLS or a token: from the environment, which the Locust processes inherit."""

import os
from pathlib import Path

import grpc

from querylife_client import ClientConfig, Tls
from querylife_client._rpc.calls import request_metadata
from querylife_client._rpc.channel import channel_credentials, channel_options

TOKEN_VARIABLE = "QUERYLIFE_TOKEN"
PEM_VARIABLES = {"authority": "LOADTEST_AUTHORITY", "certificate": "LOADTEST_CERTIFICATE", "key": "LOADTEST_KEY"}


def client_config() -> ClientConfig:
    """Raises ValueError for a certificate without its key."""
    files = {name: Path(os.environ[variable]) for name, variable in PEM_VARIABLES.items() if os.environ.get(variable)}
    return ClientConfig(tls=Tls(**files) if files else None, token=os.environ.get(TOKEN_VARIABLE))


def open_channel(address: str) -> tuple[grpc.Channel, tuple[tuple[str, str], ...]]:
    """A channel for Triton's own methods, and the metadata of each call."""
    config = client_config()
    options, metadata = channel_options(config), request_metadata(config)
    if config.tls is None:
        return grpc.insecure_channel(address, options), metadata
    return grpc.secure_channel(address, channel_credentials(config.tls), options), metadata
