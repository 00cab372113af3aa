"""What is known about the model server: whether it answers, and with which model."""

import asyncio
import logging

from querylife.artifacts.model_identity import ModelIdentity
from querylife.errors import QuerylifeError
from querylife_client import AsyncClient

log = logging.getLogger(__name__)

PERIOD_S = 2.0
TIMEOUT_S = 5.0


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
        """ "querylife" until the server has said its model's name."""
        return self.model.name if self.model else "querylife"

    @property
    def fingerprint(self) -> str:
        """Of the served model; "" where it is unknown."""
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
            log.warning("the model server does not say which model it serves: %s", error)
        if is_ready != self.is_ready:
            log.info("the model server %s", "answers" if is_ready else "does not answer")
        self.is_ready = is_ready
        if is_ready:
            self.became_ready.set()
        return is_ready
