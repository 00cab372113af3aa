"""Pictures of the web, fetched once through the client's guard and kept in a folder."""

import hashlib
import os
import threading
from pathlib import Path

from querylife.errors import InputFileError
from querylife_client.urls import UrlGuard, fetch_image


class ImageCache:
    """URL -> bytes. A picture that was fetched is not fetched again, unless refresh is asked for."""

    def __init__(self, folder: Path, guard: UrlGuard | None = None, *, refresh: bool = False) -> None:
        self._folder = folder
        self._guard = guard or UrlGuard()
        self._refresh = refresh

    def get(self, url: str) -> bytes:
        """Raises ItemError when the guard forbids it or it cannot be fetched: nothing is kept then.

        Raises InputFileError when the folder cannot be written.
        """
        name = hashlib.sha256(url.encode()).hexdigest()
        path = self._folder / name[:2] / name
        if not self._refresh:
            try:
                return path.read_bytes()
            except FileNotFoundError:
                pass
        image = fetch_image(url, self._guard)
        unfinished = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(image)
            unfinished.replace(path)
        except OSError as error:
            raise InputFileError(f"{self._folder}: cannot be written: {error}") from error
        return image
