"""Which pairs to judge: what searches find for some queries, the doubtful pairs first.

Doubt is the difference between the model's probability and GenFilt's, where `querylife-jobs filter` gave one; else how
near the model's probability is to 1/2.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from querylife.errors import InputFileError
from querylife_client import Client, SearchResults
from querylife_client.vector_store import Collections
from querylife_gateway.labelling.labels import Pair

Verdicts = Mapping[tuple[str, str], float]  # query, product_id -> GenFilt's probability that they match


def plan(client: Client, store: Collections, queries: Sequence[str], k: int, verdicts: Verdicts) -> Iterable[Pair]:
    """The k best products of each query by vectors, and the k best of vectors and words together; each pair once.

    Raises what Client.search raises.
    """
    for query in queries:
        probabilities: dict[str, float] = {}
        for hybrid in (False, True):
            results: SearchResults = client.search(query, store, k, hybrid=hybrid)
            probabilities |= {product.id: product.score for product in results}
        for product_id, probability in probabilities.items():
            yield Pair(query, product_id, doubt(probability, verdicts.get((query, product_id))))


def doubt(model: float, genfilt: float | None) -> float:
    """In [0, 1]. model, genfilt: probabilities that a product answers the query."""
    return 0.5 - abs(model - 0.5) if genfilt is None else abs(model - genfilt)


def read_verdicts(path: Path) -> Verdicts:
    """path: Parquet that `querylife-jobs filter` wrote: query, product_id, probability. Raises InputFileError."""
    import pyarrow  # noqa: PLC0415  # only where there are verdicts
    import pyarrow.parquet  # noqa: PLC0415

    try:
        rows = pyarrow.parquet.read_table(path, columns=["query", "product_id", "probability"]).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputFileError(f"{path}: want Parquet with query, product_id and probability: {error}") from error
    return {
        (row["query"], str(row["product_id"])): row["probability"] for row in rows if row["probability"] is not None
    }
