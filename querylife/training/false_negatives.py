"""False-negative filters: which in-batch negatives in truth answer the query, and so leave the contrastive loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from pyarrow import parquet
from torch import Tensor

from querylife.data.batches import Batch
from querylife.data.relevance import EXACT
from querylife.errors import InputFileError

NAMES = ("none", "duplicates", "embedding", "genfilt", "oracle")
VERDICTS = ("match", "no_match", "abstain")


class Filter(Protocol):
    def mask(self, batch: Batch, product_ids: Sequence[str], cosines: Tensor) -> Tensor:
        """False negatives: [batch, batch] bool, queries by products.

        product_ids: what each product is called in a ledger. cosines: [batch, batch], the model's own, detached.
        """
        ...


class NoFilter:
    def mask(self, batch: Batch, product_ids: Sequence[str], cosines: Tensor) -> Tensor:
        return torch.zeros_like(cosines, dtype=torch.bool)


class DuplicateFilter:
    """The same query or the same product drawn twice."""

    def mask(self, batch: Batch, product_ids: Sequence[str], cosines: Tensor) -> Tensor:
        return (
            _same(batch.queries)
            | _same(product_ids)
            | _same([title or str(row) for row, title in enumerate(batch.titles)])
        )


class EmbeddingFilter:
    """A product that the model itself finds at least as close as the query's own, less a margin."""

    def __init__(self, margin: float = 0.02) -> None:
        self._margin = margin

    def mask(self, batch: Batch, product_ids: Sequence[str], cosines: Tensor) -> Tensor:
        return cosines >= cosines.diagonal().unsqueeze(1) - self._margin


class LedgerFilter:
    """GenFilt's verdicts: a Parquet file with columns query, product_id, verdict (match, no_match or abstain).

    asked and abstained count the pairs looked up; a pair without verdict counts as abstained and stays a negative.
    """

    def __init__(self, path: Path) -> None:
        try:
            table = parquet.read_table(path, columns=["query", "product_id", "verdict"]).to_pydict()
        except (OSError, KeyError, ValueError) as error:
            raise InputFileError(f"{path}: want a ledger with query, product_id, verdict: {error}") from error
        unknown = set(table["verdict"]) - set(VERDICTS)
        if unknown:
            raise InputFileError(f"{path}: found verdicts {sorted(unknown)}, want {', '.join(VERDICTS)}")
        pairs = zip(table["query"], table["product_id"], strict=True)
        self._verdicts = dict(zip(pairs, table["verdict"], strict=True))
        self.asked = self.abstained = 0

    def mask(self, batch: Batch, product_ids: Sequence[str], cosines: Tensor) -> Tensor:
        verdicts = [
            [self._verdicts.get((query, product), "abstain") for product in product_ids] for query in batch.queries
        ]
        self.asked += len(product_ids) * len(batch.queries)
        self.abstained += sum(row.count("abstain") for row in verdicts)
        return torch.tensor([[verdict == "match" for verdict in row] for row in verdicts])


class OracleFilter:
    """The truth, where it is known: to measure the others by, not to train what is shipped."""

    def mask(self, batch: Batch, product_ids: Sequence[str], cosines: Tensor) -> Tensor:
        return torch.from_numpy(batch.grades == EXACT)


class CountingFilter:
    """Another filter, with its masks held against the truth: counts of the pairs off the diagonal, over all batches.

    pairs: all; false: those that in truth answer; masked: those that the filter leaves out; caught: both.
    """

    def __init__(self, filter_: Filter) -> None:
        self._filter = filter_
        self.counts = dict.fromkeys(("pairs", "false", "masked", "caught"), 0)

    def mask(self, batch: Batch, product_ids: Sequence[str], cosines: Tensor) -> Tensor:
        mask = self._filter.mask(batch, product_ids, cosines).cpu()
        others = ~torch.eye(len(batch.queries), dtype=torch.bool)
        truth = torch.from_numpy(batch.grades == EXACT)
        counted = {"pairs": others, "false": truth & others, "masked": mask & others, "caught": mask & truth & others}
        for name, places in counted.items():
            self.counts[name] += int(places.sum())
        return mask


def make_filter(name: str, ledger: Path | None = None) -> Filter:
    if name == "genfilt":
        if ledger is None:
            raise InputFileError("filter genfilt: found no ledger, want one")
        return LedgerFilter(ledger)
    filters: dict[str, Filter] = {
        "none": NoFilter(),
        "duplicates": DuplicateFilter(),
        "embedding": EmbeddingFilter(),
        "oracle": OracleFilter(),
    }
    return filters[name]


def _same(values: Sequence[str]) -> Tensor:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    index = torch.tensor([numbers[value] for value in values])
    return index.unsqueeze(0) == index.unsqueeze(1)
