"""The servers as a job sees them: clients with the job's credentials, and the wait for readiness."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from querylife.contract import MAX_BATCH
from querylife.errors import DeadlineExceededError, UnavailableError
from querylife_client import AsyncClient, ClientConfig, RetryPolicy, Tls
from querylife_client.config import Decode

log = logging.getLogger(__name__)

T = TypeVar("T")

READY_POLL_S = 0.5
CHECK_S = 5.0


class Connection(Protocol):
    """What a job's configuration says about its server. timeout_s: seconds, for each request.

    decode: who decodes pictures, see ClientConfig.
    """

    @property
    def server(self) -> str: ...
    @property
    def token_file(self) -> Path | None: ...
    @property
    def tls_authorities(self) -> Path | None: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def decode(self) -> Decode: ...


def connect_triton(connection: Connection, decode_threads: int | None = None) -> AsyncClient:
    """A client of Triton, with the bearer token and the certificate authorities that the job names.

    decode_threads: where the client decodes; None: one for each processor.
    """
    config = _config(connection, decode=connection.decode, decode_threads=decode_threads)
    return AsyncClient(connection.server, timeout_s=connection.timeout_s, config=config)


def connect_genfilt(connection: Connection) -> AsyncClient:
    """A client of GenFilt that neither retries nor splits: the job does both, as fast as the server has room."""
    config = _config(connection, retry=RetryPolicy(attempts=1), genfilt_items=MAX_BATCH)
    return AsyncClient(genfilt=connection.server, timeout_s=connection.timeout_s, config=config)


def _config(connection: Connection, **options: object) -> ClientConfig:
    """The token file is read before each request, so a renewed token needs no restart."""
    token_file = connection.token_file
    token = None if token_file is None else lambda: token_file.read_text("utf-8").strip()
    tls = None if connection.tls_authorities is None else Tls(connection.tls_authorities)
    return ClientConfig(token=token, tls=tls, **options)  # type: ignore[arg-type]  # they are ClientConfig's


async def wait_ready(client: AsyncClient, ask: Callable[..., Awaitable[T]], patience_s: float) -> T:
    """What the server says of itself, once it is ready. ask: client.model_identity or client.generator_metadata.

    Raises UnavailableError after patience_s without an answer, CredentialsError at once when the server refuses the
    token or the certificate, ServerFaultError when it is a server of another kind.
    """
    end = time.monotonic() + patience_s
    waits = False
    while True:
        reason: object = "it loads or drains"
        try:
            is_ready = await client.ready(timeout_s=CHECK_S)
            answer = await ask(timeout_s=CHECK_S)
        except (UnavailableError, DeadlineExceededError) as error:
            is_ready, reason = False, error
        if is_ready:
            if waits:
                log.info("the server is ready")
            return answer
        if time.monotonic() > end:
            raise UnavailableError(f"the server has been away for {patience_s:g} s")
        if not waits:
            log.info("waiting up to %g s for the server: %s", patience_s, reason)
            waits = True
        await asyncio.sleep(READY_POLL_S)
