"""What the search page knows of the indexed products beside their vectors: words, filter values, pictures."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from querylife.catalog.reader import load_catalog
from querylife.errors import QuerylifeError
from querylife_client.vector_store import StoredRow
from querylife_gateway.vocabulary import Vocabulary

log = logging.getLogger(__name__)

MAX_ROWS = 200_000  # that are read for words and filter values; a larger index is sampled by its first ones
MAX_VALUES = 200  # of a column that the page offers as a filter

PICTURE_TYPES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True)
class Summary:
    """columns: of the index, name -> kind. values: column -> value -> number of products, most frequent first."""

    count: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, int]] = field(default_factory=dict)


class Index:
    """A vector store, with what was read from it in the background. Until that is there, nothing is corrected."""

    def __init__(self, store: Any, catalog: Path | None, known_words: Callable[[], Collection[str]]) -> None:
        """store: from querylife_jobs.stores.open_store. catalog: with the pictures. known_words: never corrected."""
        self.store = store
        self.vocabulary = Vocabulary()
        self.summary = Summary()
        self._catalog = catalog
        self._known_words = known_words
        self._pictures: dict[str, bytes] = {}
        self._version: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read words, filter values and pictures, where the index changed. Blocks; logs what goes wrong."""
        with self._lock:
            try:
                collection = self.store.current()
                version = (id(collection), collection.count())
                if version == self._version:
                    return
                if not self._pictures and self._catalog is not None:
                    products = load_catalog(self._catalog).products
                    self._pictures = {product.id: product.image for product in products if product.image}
                self._read(collection)
                self._version = version
            except QuerylifeError as error:
                log.warning("the index cannot be read: %s", error)

    def _read(self, collection: Any) -> None:
        columns = collection.identity().columns
        counters: dict[str, Counter[str]] = {name: Counter() for name, kind in columns.items() if kind == "text"}
        titles = []
        for row in _rows(collection):
            titles.append(f"{row.attributes.get('title') or ''} {row.attributes.get('product_type') or ''}")
            for name, counter in list(counters.items()):
                if (value := row.attributes.get(name)) is not None:
                    counter[str(value)] += 1
                    if len(counter) > MAX_VALUES:
                        del counters[name]
        values = {name: dict(counter.most_common()) for name, counter in counters.items() if len(counter) > 1}
        self.summary = Summary(collection.count(), dict(columns), values)
        self.vocabulary = Vocabulary(titles, self._known_words())

    def has_picture(self, identifier: str) -> bool:
        """Whether the catalogue has a picture of this product id."""
        return identifier in self._pictures

    def picture(self, identifier: str) -> bytes | None:
        """The encoded picture of a product id; None where there is none."""
        return self._pictures.get(identifier)


def picture_type(picture: bytes) -> str | None:
    """The media type of an encoded picture that browsers show; None for anything else."""
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return "image/webp"
    if picture[4:12] == b"ftypavif":
        return "image/avif"
    return next((media_type for signature, media_type in PICTURE_TYPES if picture.startswith(signature)), None)


def _rows(collection: Any) -> Iterator[StoredRow]:
    read = 0
    for ids in collection.scan_ids():
        yield from collection.fetch(ids)
        read += len(ids)
        if read >= MAX_ROWS:
            return
