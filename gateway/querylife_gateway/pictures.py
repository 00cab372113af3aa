"""Pictures in requests: data URIs, and URLs that are fetched through the client's guard."""

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor

from querylife.errors import ItemError
from querylife_client.urls import UrlGuard, fetch_image
from querylife_gateway.errors import HttpError

_DATA = "data:image/"
_THREADS = 16  # a host that answers slowly holds one of them for the guard's five seconds


class PictureReader:
    """allowed_hosts: of URLs; None: any public host. urls False: no URL is fetched."""

    def __init__(self, urls: bool, allowed_hosts: frozenset[str] | None) -> None:
        self._guard = UrlGuard(allowed_hosts=allowed_hosts) if urls else None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch")

    def close(self) -> None:
        """Fetches that wait are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, source: str, param: str) -> bytes:
        """The encoded picture behind a data URI or a URL. Raises HttpError 400 that names param."""
        if is_data_uri(source):
            return _decode(source, param)
        if self._guard is None:
            raise HttpError(400, "found a URL, want a data URI: this gateway fetches none", param=param)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, fetch_image, source, self._guard)
        except ItemError as error:
            raise HttpError(400, f"{param}: {error}", param=param) from error


def is_data_uri(text: str) -> bool:
    """Whether a text is a picture, not words."""
    return text.startswith(_DATA)


def _decode(uri: str, param: str) -> bytes:
    head, comma, encoded = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise HttpError(400, f"{param}: found {uri[:40]!r}, want data:image/...;base64,...", param=param)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HttpError(400, f"{param}: found no base64: {error}", param=param) from error
