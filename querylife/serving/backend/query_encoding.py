"""Queries to unit vectors in one process: tokenising and the text tower."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from querylife.contract import QUERY_TOWER, TEXT_TOWER
from querylife.serving.backend.repository_files import repository_lock, repository_tokenizer, repository_tower
from querylife.serving.backend.request_arrays import Arrays, bytes_column, fault_column
from querylife.serving.backend.towers import run_distinct


class QueryEncoder:
    """The tokenizer, and the query tower or else the text tower, of the repository of version_folder."""

    def __init__(self, version_folder: Path, threads: str) -> None:
        """version_folder: REPOSITORY/MODEL/1. threads: as OnnxTower takes it. Raises ArtifactError."""
        self._tokenizer = repository_tokenizer(version_folder, corrects=True)
        has_own = repository_lock(version_folder).query_tower is not None
        self.tower = repository_tower(version_folder, QUERY_TOWER if has_own else TEXT_TOWER, threads)

    def encode(self, queries: NDArray[np.object_]) -> Arrays:
        """queries: [batch, 1] object, UTF-8. Returns the outputs of contract.EMBED_QUERY; faults stay in their rows."""
        tokens = self._tokenizer.encode_queries(bytes_column(queries))
        inputs: Arrays = {"token_ids": tokens.token_ids, "token_roles": tokens.token_roles}
        outputs = run_distinct(inputs, lambda rows: self.tower.run(rows, ["text_embedding"]))
        return {
            "query_embedding": outputs["text_embedding"],
            "query_used": tokens.text_used[:, None],
            "query_fault": fault_column(tokens.faults, len(queries)),
        }
