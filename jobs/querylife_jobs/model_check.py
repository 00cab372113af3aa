"""Whether the server still serves the model that a job began with: one question for every batch that waits for it."""

import asyncio

from querylife.artifacts.model_identity import ModelIdentity
from querylife.errors import FingerprintMismatchError
from querylife_client import AsyncClient


class ModelCheck:
    """For one client. A question vouches for all vectors that were there before it was sent; one is sent at a time."""

    def __init__(self, client: AsyncClient, model: ModelIdentity) -> None:
        """model: the one that the job began with."""
        self._client = client
        self._model = model
        self._asking: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    async def unchanged(self) -> None:
        """Returns after an answer to a question that was sent after this call, together with all others who wait.

        Raises FingerprintMismatchError, naming both models, when the server changed it; ServiceError when it does not
        answer.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(self._ask(self._asking))
            self._next.add_done_callback(lambda done: done.cancelled() or done.exception())  # retrieved, if all left
        await asyncio.shield(self._next)

    async def _ask(self, before: asyncio.Future[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._asking, self._next = self._next, None
        compare(self._model, await self._client.model_identity())


def compare(wanted: ModelIdentity, current: ModelIdentity) -> None:
    """Raises FingerprintMismatchError, naming both, when vectors of the two models must not be mixed."""
    for name in ("fingerprint", "preprocessing", "precision", "embedding_width"):
        before, after = str(getattr(wanted, name)), str(getattr(current, name))
        if before != after:
            raise FingerprintMismatchError(f"the server changed its model's {name} while the job ran", after, before)
