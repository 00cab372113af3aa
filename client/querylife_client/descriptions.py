"""What GenFilt answers: descriptions, judgements, and a mask over pairs."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from querylife.errors import ServiceError


@dataclass(frozen=True)
class Description:
    """What one product is. product_type is empty where error says why there is none.

    product_type: a short phrase, for example "running shoes". attributes: "colour", "gender", ...; only what is known.
    """

    product_type: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    error: ServiceError | None = None


class Verdict(StrEnum):
    """Whether a product answers a query; ABSTAIN where the evidence decides nothing."""

    MATCH = "match"  # the product answers the query
    NO_MATCH = "no_match"
    ABSTAIN = "abstain"  # the generator cannot tell, or error says why there is no verdict


@dataclass(frozen=True)
class Judgement:
    """Whether one product answers one query. probability is in [0, 1]."""

    verdict: Verdict = Verdict.ABSTAIN
    probability: float = 0.0
    description: Description = field(default_factory=Description)
    error: ServiceError | None = None


@dataclass(frozen=True)
class FilteredPairs:
    """Every query against every product.

    match, abstain: [queries, products] bool. probability: [queries, products] float32 in [0, 1].
    query_errors, product_errors: index -> what is wrong; the pairs of that row or column are abstentions.
    """

    match: NDArray[np.bool_]
    abstain: NDArray[np.bool_]
    probability: NDArray[np.float32]
    query_errors: dict[int, ServiceError] = field(default_factory=dict)
    product_errors: dict[int, ServiceError] = field(default_factory=dict)

    def __len__(self) -> int:
        """Pairs."""
        return self.match.size

    @classmethod
    def unfilled(cls, queries: int, products: int) -> "FilteredPairs":
        """Neither matches nor abstentions, to be filled with tiles."""
        shape = (queries, products)
        return cls(np.zeros(shape, np.bool_), np.zeros(shape, np.bool_), np.zeros(shape, np.float32))

    def fill(self, tile: "FilteredTile") -> None:
        """Copy a tile of the same queries and products to its place."""
        rows = slice(tile.queries.start, tile.queries.stop), slice(tile.products.start, tile.products.stop)
        self.match[rows] = tile.pairs.match
        self.abstain[rows] = tile.pairs.abstain
        self.probability[rows] = tile.pairs.probability
        self.query_errors.update({tile.queries[row]: error for row, error in tile.pairs.query_errors.items()})
        self.product_errors.update({tile.products[row]: error for row, error in tile.pairs.product_errors.items()})


@dataclass(frozen=True)
class FilteredTile:
    """Some queries against some products: one request of stream_filtered_pairs.

    queries, products: which of the call's. pairs: theirs; indices in its errors count from the start of the tile.
    """

    queries: range
    products: range
    pairs: FilteredPairs

    def __len__(self) -> int:
        """Pairs."""
        return len(self.pairs)
