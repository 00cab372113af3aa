"""Products whose pictures the client decodes, with the server's own function. No I/O but reading pictures."""

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import ModelIdentity
from querylife.contract import DECODED_IMAGE, EMBED_DECODED_PRODUCT, HAS_IMAGE, IMAGE, IMAGE_FAULT, PIXELS_VERSION
from querylife.errors import ConfigError, ContractError, ItemError, ServerFaultError
from querylife_client._requests.batches import Item, RequestBatch, item_batches, product_item
from querylife_client.config import Limits
from querylife_client.products import Product

_AHEAD = 2  # pictures for each thread that are read before their turn

Planes = NDArray[np.uint8]  # [3, size, size]


class ImageDecoder:
    """Decodes in threads: Pillow releases the interpreter lock. Safe to share between threads."""

    def __init__(self, threads: int | None = None) -> None:
        """threads: None: one for each processor that this process may use. Raises ConfigError without Pillow."""
        try:
            from querylife.preprocessing.image import FITS, decode  # noqa: PLC0415  # only for those who decode
        except ImportError as error:
            missing = f"decode: found 'client' without {error.name}"
            raise ConfigError(f"{missing}, want it: pip install 'querylife[images]'") from error
        self._decode, self._fits = decode, FITS.keys()
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, "querylife-decode")

    def close(self) -> None:
        """Decodings that are under way end; a call that waits for others raises ContractError."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def batches(
        self, products: Iterable[Product], limits: Limits, served: ModelIdentity | None
    ) -> Iterator[RequestBatch]:
        """Requests to embed_decoded_product, with planes of the size that the served model takes.

        Pictures are read and decoded a few ahead of their request. Raises what _image_format raises.
        """
        size, fit = _image_format(served, self._fits)
        return item_batches(EMBED_DECODED_PRODUCT, self._items(products, size, fit), limits, served)

    def _items(self, products: Iterable[Product], size: int, fit: str) -> Iterator[Item]:
        """The products in order, with planes of [3, size, size] in the place of encoded pictures.

        A picture that cannot be decoded is the product's image_fault, as the server would answer it. Of encoded
        pictures only a few are in memory at once.
        """
        missing = np.zeros((3, size, size), np.uint8)
        waiting: deque[tuple[Item, Future[Planes | ItemError] | None]] = deque()
        try:
            for product in products:
                item = product_item(product)
                waiting.append((item, self._start(item.values.pop(IMAGE.name), size, fit)))
                if len(waiting) > _AHEAD * self._threads:
                    yield _decoded(*waiting.popleft(), missing)
            while waiting:
                yield _decoded(*waiting.popleft(), missing)
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()

    def _start(self, image: bytes, size: int, fit: str) -> Future[Planes | ItemError] | None:
        if not image:
            return None
        try:
            return self._pool.submit(self._planes, image, size, fit)
        except RuntimeError as error:  # the pool is shut down
            raise ContractError("the client is closed") from error

    def _planes(self, image: bytes, size: int, fit: str) -> Planes | ItemError:
        try:
            return self._decode(image, size, fit)
        except ItemError as error:
            return error


def _decoded(item: Item, decoding: Future[Planes | ItemError] | None, missing: Planes) -> Item:
    try:
        planes = missing if decoding is None else decoding.result()
    except CancelledError as error:
        raise ContractError("the client was closed during the call") from error
    fault = b""
    if isinstance(planes, ItemError):
        planes, fault = missing, str(planes).encode()
    arrays = {DECODED_IMAGE.name: planes, HAS_IMAGE.name: np.array([planes is not missing])}
    return Item(item.values, item.error, arrays, {IMAGE_FAULT.name: fault})


def _image_format(served: ModelIdentity | None, fits: Collection[str]) -> tuple[int, str]:
    """Side of the pictures that the server takes, in pixels, and how they are made square. fits: what we know of.

    Raises ServerFaultError where the server does not say, ContractError where it decodes otherwise than this client.
    """
    if served is None or served.image_size is None:
        raise ServerFaultError(
            "found a server that does not say its image size, want `querylife serve` of this version"
        )
    if served.pixels_version != PIXELS_VERSION:
        versions = f"found pixels version {PIXELS_VERSION}, the server wants {served.pixels_version}"
        raise ContractError(f"{versions}: install one version of querylife on both sides, or let the server decode")
    if served.image_fit not in fits:
        wanted = f'the server wants pictures made square by "{served.image_fit}", found {", ".join(fits)}'
        raise ContractError(f"{wanted}: install its version of querylife, or let the server decode")
    return served.image_size, served.image_fit
