"""POST /v1/why: what a product's score is made of."""

import asyncio
import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from querylife.errors import ArtifactError, QuerylifeError
from querylife_client import Product
from querylife_gateway.endpoint import Answer, Call
from querylife_gateway.errors import HttpError
from querylife_gateway.schema import WhyRequest
from querylife_gateway.search import required_index

if TYPE_CHECKING:
    from querylife_gateway.explanation import Explainer


log = logging.getLogger(__name__)


class WhyService:
    """Loads the checkpoint at the first question, in a thread of its own that also answers."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="why")
        self._explainer: Explainer | None = None

    def close(self) -> None:
        """Questions that wait are cancelled."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def explain(self, query: str, product: Product, served: str) -> dict[str, Any]:
        """served: fingerprint of the model that is served. Raises HttpError 503 where the checkpoint is another."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._explain, query, product, served)

    def whole_words(self) -> Collection[str]:
        """Words that the model knows; none where the checkpoint cannot be loaded. Blocks."""
        try:
            return self._thread.submit(lambda: self._loaded().whole_words()).result()
        except (HttpError, QuerylifeError) as error:
            log.warning("no explanations: %s", error)
            return ()

    def _loaded(self) -> "Explainer":
        if self._explainer is None:
            self._explainer = _load(self._checkpoint)
        return self._explainer

    def _explain(self, query: str, product: Product, served: str) -> dict[str, Any]:
        explainer = self._loaded()
        if served not in ("", explainer.fingerprint):
            raise HttpError(503, "the checkpoint is of another model than the one that is served")
        return asdict(explainer.explain(query, product))


async def why(call: Call[WhyRequest]) -> Answer:
    """POST /v1/why. Raises HttpError 404 for an unknown product, or where nothing is explained."""
    service = call.gateway.why
    if service is None:
        raise HttpError(404, "this gateway explains nothing: it was started without --checkpoint")
    index = required_index(call)
    request = call.request
    rows = await asyncio.to_thread(lambda: index.store.current().fetch([request.id]))
    if not rows:
        raise HttpError(404, f"found no product {request.id!r}", param="id")
    attributes = rows[0].attributes
    product = Product(
        str(attributes.get("title") or "") or None,
        index.picture(request.id),
        str(attributes.get("product_type") or "") or None,
    )
    return Answer(await service.explain(request.query, product, call.gateway.model_server.fingerprint))


def _load(checkpoint: Path) -> "Explainer":
    try:
        import torch  # noqa: PLC0415  # an extra

        from querylife_gateway.explanation import Explainer  # noqa: PLC0415
    except ImportError as error:
        raise HttpError(503, f"explanations need the extra `train`: {error}") from error
    torch.set_num_threads(1)  # the model server needs the others
    try:
        return Explainer(checkpoint)
    except ArtifactError as error:
        log.warning("%s", error)
        raise HttpError(503, "the checkpoint cannot be read; the gateway's log says why") from error
