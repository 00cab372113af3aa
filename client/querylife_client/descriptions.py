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
