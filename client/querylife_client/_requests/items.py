"""Queries and products as the bytes of their tensors, and splitting many of them. No I/O but reading pictures."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from querylife.contract import IMAGE, MAX_TEXT_CHARACTERS, PRODUCT_TYPE, QUERY, TITLE
from querylife.errors import InvalidRequestError, ItemError, ItemFault
from querylife_client.config import Limits
from querylife_client.images import image_bytes
from querylife_client.products import Product, Text


@dataclass(frozen=True)
class Item:
    """One item of a request: tensor name -> its bytes, and the fault that kept one of them from being sent.

    arrays: tensor name -> its array. faults: what the client finds in the server's place, name of a fault tensor ->
    its value.
    """

    values: dict[str, bytes]
    error: ItemError | None = None
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    faults: dict[str, bytes] = field(default_factory=dict)

    @property
    def request_bytes(self) -> int:
        """What it takes of a request."""
        return sum(map(len, self.values.values())) + sum(array.nbytes for array in self.arrays.values())

    def beside(self, other: "Item") -> "Item":
        """The tensors of both. A query has no error: an unusable one is refused."""
        return Item(self.values | other.values, other.error)


def query_item(index: int, query: Text) -> Item:
    """Raises InvalidRequestError, naming the query's index, when it cannot be sent."""
    try:
        return Item({QUERY.name: _text(query)})
    except ItemError as error:
        raise unusable_query(index, error) from error


def product_item(product: Product) -> Item:
    """Parts that cannot be sent are left out; the first one's error is the item's."""
    readers: dict[str, tuple[Callable[[Any], bytes], object]] = {
        TITLE.name: (_text, product.title),
        IMAGE.name: (image_bytes, product.image),
        PRODUCT_TYPE.name: (_text, product.product_type),
    }
    values, errors = {}, []
    for name, (read, source) in readers.items():
        try:
            values[name] = read(source)
        except ItemError as error:
            values[name] = b""
            errors.append(error)
    return Item(values, first_error(errors))


def _text(text: Text | None) -> bytes:
    """UTF-8 bytes, empty where missing. Raises ItemError for a text that the server would refuse unread."""
    if text is None:
        return b""
    if not isinstance(text, (str, bytes)):
        raise ItemError(ItemFault.TEXT_NOT_UTF8, f"found {type(text).__name__} {text!r:.80}, want str or bytes")
    if len(text) > MAX_TEXT_CHARACTERS * (4 if isinstance(text, bytes) else 1):
        unit = "bytes" if isinstance(text, bytes) else "characters"
        detail = f"found {len(text)} {unit}, want at most {MAX_TEXT_CHARACTERS} characters"
        raise ItemError(ItemFault.TEXT_TOO_LONG, detail)
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        character = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise ItemError(ItemFault.TEXT_NOT_UTF8, f"found {character}, want text that UTF-8 can hold") from error


def split(items: Iterable[Item], limits: Limits) -> Iterator[list[Item]]:
    """Groups of at most limits.items items and limits.request_bytes bytes; a larger item is a group of its own."""
    batch: list[Item] = []
    batch_bytes = 0
    for item in items:
        item_bytes = item.request_bytes
        if batch and (len(batch) == limits.items or batch_bytes + item_bytes > limits.request_bytes):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(item)
        batch_bytes += item_bytes
    if batch:
        yield batch


def unusable_query(index: int, error: ItemError) -> InvalidRequestError:
    """The error of a call with a query that cannot be embedded."""
    return InvalidRequestError(f"query {index}: {error}")


def first_error(errors: list[ItemError]) -> ItemError | None:
    """The first of one item's errors, with the others as its notes; None where there are none."""
    for further in errors[1:]:
        errors[0].add_note(str(further))
    return errors[0] if errors else None
