"""The model server: how it is called, whether it answers, and with which model."""

import asyncio
import logging
from pathlib import Path

from querylife.artifacts.model_identity import ModelIdentity
from querylife.errors import QuerylifeError
from querylife_client import AsyncClient, ClientConfig, Tls
from querylife_client.errors import CredentialsError
from querylife_gateway.config import GatewayConfig

log = logging.getLogger(__name__)

PERIOD_S = 2.0
TIMEOUT_S = 5.0


def client_config(config: GatewayConfig) -> ClientConfig:
    """The token file is read before each request, so a renewed token needs no restart."""
    token_file = config.token_file
    return ClientConfig(
        query_cache_items=config.query_cache_items,
        token=None if token_file is None else lambda: _read_token(token_file),
        tls=None if config.tls_authorities is None else Tls(config.tls_authorities),
    )


def _read_token(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(f"{path}: cannot be read: {error}") from error


class ModelServer:
    """Asks the model server every two seconds for a real answer."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.is_ready = False
        self.became_ready = asyncio.Event()
        self.model: ModelIdentity | None = None
        self.embedding_width = 0

    @property
    def model_name(self) -> str:
        return self.model.name if self.model else "querylife"

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint if self.model else ""

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(PERIOD_S)

    async def check(self) -> bool:
        """Whether the server answers now."""
        is_ready = False
        try:
            if await self._client.ready(timeout_s=TIMEOUT_S):
                metadata = await self._client.metadata(timeout_s=TIMEOUT_S)
                self.model, self.embedding_width = metadata.model, metadata.embedding_width
                is_ready = True
        except QuerylifeError as error:
            log.warning("the model server cannot be asked: %s", error)
        if is_ready != self.is_ready:
            log.info("the model server %s", "answers" if is_ready else "does not answer")
        self.is_ready = is_ready
        if is_ready:
            self.became_ready.set()
        return is_ready
