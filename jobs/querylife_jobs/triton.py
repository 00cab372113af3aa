"""The Triton server as a job sees it: a connection with the job's credentials, and the wait for readiness."""

import asyncio
import time
from pathlib import Path
from typing import Protocol

from querylife.errors import ServiceError, UnavailableError
from querylife_client import AsyncClient, ClientConfig, Tls
from querylife_client.errors import CredentialsError
from querylife_jobs.runner import AccessError

READY_POLL_S = 0.5
CHECK_S = 5.0


class Connection(Protocol):
    """What a job's configuration says about its server. timeout_s: seconds, for each request."""

    @property
    def server(self) -> str: ...
    @property
    def token_file(self) -> Path | None: ...
    @property
    def tls_authorities(self) -> Path | None: ...
    @property
    def timeout_s(self) -> float: ...


def connect(connection: Connection) -> AsyncClient:
    """A client for the server, with the bearer token and the certificate authorities that the job names.

    The token file is read before each request, so a renewed token needs no restart.
    """
    token_file = connection.token_file
    token = None if token_file is None else lambda: token_file.read_text("utf-8").strip()
    tls = None if connection.tls_authorities is None else Tls(connection.tls_authorities)
    return AsyncClient(connection.server, timeout_s=connection.timeout_s, config=ClientConfig(token=token, tls=tls))


async def wait_ready(client: AsyncClient, patience_s: float) -> None:
    """Returns once the server answers. Raises UnavailableError after patience_s without an answer.

    Raises AccessError at once when the server refuses the token or the certificate.
    """
    end = time.monotonic() + patience_s
    while not await client.ready(timeout_s=CHECK_S):
        await _check_credentials(client)
        if time.monotonic() > end:
            raise UnavailableError(f"the server has been away for {patience_s:g} s")
        await asyncio.sleep(READY_POLL_S)


async def _check_credentials(client: AsyncClient) -> None:
    try:
        await client.metadata(timeout_s=CHECK_S)
    except CredentialsError as error:
        raise AccessError(str(error)) from error
    except ServiceError:
        pass
