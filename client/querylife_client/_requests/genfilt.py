"""GenFilt's requests and answers. No I/O but reading pictures.

As in batches: one class per kind of request, sent by both clients in the same way.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genfilt_protocol import genfilt_pb2 as genfilt
from querylife.contract import IMAGE, PRODUCT_TYPE, QUERY, TITLE
from querylife.errors import ItemError, ServerFaultError, ServiceError
from querylife_client._requests.batches import Item, product_item, query_item, split
from querylife_client._rpc.calls import Rpc
from querylife_client.config import Limits
from querylife_client.descriptions import Description, FilteredPairs, FilteredTile, Judgement, Verdict
from querylife_client.products import Product, Text

_SERVICE = "/querylife.genfilt.v1.GenFilt/"
_VERDICTS = {
    genfilt.VERDICT_MATCH: Verdict.MATCH,
    genfilt.VERDICT_NO_MATCH: Verdict.NO_MATCH,
    genfilt.VERDICT_ABSTAIN: Verdict.ABSTAIN,
}

DESCRIBE = Rpc(f"{_SERVICE}Describe", genfilt.DescribeRequest, genfilt.DescribeResponse.FromString)
JUDGE = Rpc(f"{_SERVICE}Judge", genfilt.JudgeRequest, genfilt.JudgeResponse.FromString)
FILTER = Rpc(f"{_SERVICE}Filter", genfilt.FilterRequest, genfilt.FilterResponse.FromString)
METADATA = Rpc(f"{_SERVICE}Metadata", genfilt.MetadataRequest, genfilt.Provenance.FromString)


@dataclass(frozen=True)
class DescribeBatch:
    """items: the products."""

    items: Sequence[Item]
    rpc: Rpc = DESCRIBE

    def request(self, _: object) -> Any:
        return genfilt.DescribeRequest(products=[_message(item) for item in self.items])

    def read(self, response: Any, _: object) -> list[Description]:
        """A description for each product. Raises ServerFaultError when the answer has another number of results."""
        results = _one_each(response.results, len(self.items))
        return [_description(item, result) for item, result in zip(self.items, results, strict=True)]


@dataclass(frozen=True)
class JudgeBatch:
    """items: the pairs, each a query and a product."""

    items: Sequence[Item]
    rpc: Rpc = JUDGE

    def request(self, _: object) -> Any:
        pairs = [genfilt.Pair(query=item.values[QUERY.name], product=_message(item)) for item in self.items]
        return genfilt.JudgeRequest(pairs=pairs)

    def read(self, response: Any, _: object) -> list[Judgement]:
        """A judgement for each pair. Raises ServerFaultError when the answer breaks the contract."""
        results = _one_each(response.results, len(self.items))
        return [_judgement(item, result) for item, result in zip(self.items, results, strict=True)]


@dataclass(frozen=True)
class FilterBatch:
    """One tile of the matrix. row, column: where it begins."""

    row: int
    column: int
    queries: Sequence[Item]
    products: Sequence[Item]
    rpc: Rpc = FILTER

    def request(self, _: object) -> Any:
        queries = [item.values[QUERY.name] for item in self.queries]
        return genfilt.FilterRequest(queries=queries, products=[_message(item) for item in self.products])

    def read(self, response: Any, _: object) -> FilteredTile:
        """The tile's [queries, products] arrays. Raises ServerFaultError for another number of results."""
        shape = (len(self.queries), len(self.products))
        lengths = {len(response.verdicts), len(response.probabilities)}
        if lengths != {shape[0] * shape[1]}:
            raise ServerFaultError(f"filter: found {sorted(lengths)} results, want {shape[0] * shape[1]}")
        verdicts = np.array(response.verdicts).reshape(shape)
        pairs = FilteredPairs(
            match=verdicts == genfilt.VERDICT_MATCH,
            abstain=verdicts == genfilt.VERDICT_ABSTAIN,
            probability=np.array(response.probabilities, np.float32).reshape(shape),
            query_errors=_errors(self.queries, response.query_errors),
            product_errors=_errors(self.products, response.product_errors),
        )
        rows = range(self.row, self.row + shape[0])
        return FilteredTile(rows, range(self.column, self.column + shape[1]), pairs)


def describe_batches(products: Iterable[Product], limits: Limits) -> Iterator[DescribeBatch]:
    """Requests to Describe. Pictures are read when their request is built, not before."""
    return map(DescribeBatch, split(map(product_item, products), limits))


def judge_batches(queries: Sequence[Text], products: Sequence[Product], limits: Limits) -> Iterator[JudgeBatch]:
    """Requests to Judge, each query with the product of the same index. Raises ValueError for other numbers of them."""
    if len(queries) != len(products):
        raise ValueError(f"found {len(queries)} queries for {len(products)} products, want one for each")
    pairs = zip(enumerate(queries), products, strict=True)
    items = (query_item(index, query).beside(product_item(product)) for (index, query), product in pairs)
    return map(JudgeBatch, split(items, limits))


def filter_batches(queries: Sequence[Text], products: Sequence[Product], limits: Limits) -> Iterator[FilterBatch]:
    """Tiles, row by row. Pictures are read once."""
    rows = list(split((query_item(index, query) for index, query in enumerate(queries)), limits))
    columns = list(split(map(product_item, products), limits))
    row = 0
    for query_tile in rows:
        column = 0
        for product_tile in columns:
            yield FilterBatch(row, column, query_tile, product_tile)
            column += len(product_tile)
        row += len(query_tile)


def _message(item: Item) -> Any:
    values = item.values
    return genfilt.Product(title=values[TITLE.name], image=values[IMAGE.name], product_type=values[PRODUCT_TYPE.name])


def _one_each(results: Sequence[Any], items: int) -> Sequence[Any]:
    if len(results) != items:
        raise ServerFaultError(f"genfilt: found {len(results)} results, want {items}")
    return results


def _description(item: Item, result: Any) -> Description:
    if result.WhichOneof("outcome") != "description":
        return Description(error=_error(result.error) if item.error is None else item.error)
    return _read_description(result.description, item.error)


def _judgement(item: Item, result: Any) -> Judgement:
    if result.WhichOneof("outcome") != "judgement":
        return Judgement(error=_error(result.error) if item.error is None else item.error)
    judged = result.judgement
    if judged.verdict not in _VERDICTS or not 0 <= judged.probability <= 1:
        raise ServerFaultError(f"genfilt: found verdict {judged.verdict}, probability {judged.probability}")
    description = _read_description(judged.description, None)
    return Judgement(_VERDICTS[judged.verdict], judged.probability, description, item.error)


def _read_description(message: Any, error: ServiceError | None) -> Description:
    return Description(message.product_type, dict(message.attributes), error)


def _errors(items: Sequence[Item], errors: Any) -> dict[int, ServiceError]:
    """Index in the tile -> the client's own error of an item, or the server's."""
    own = {index: item.error for index, item in enumerate(items) if item.error is not None}
    return {index: _error(error) for index, error in errors.items()} | own


def _error(message: Any) -> ServiceError:
    """An item's own fault; or the server's, where the generator failed."""
    text = f"{message.fault}: {message.detail}"
    try:
        return ItemError.parse(text)
    except ValueError:
        return ServerFaultError(text)
