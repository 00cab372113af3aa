"""From one model to the next without a wrong row: a second collection beside the first, and one switch.

start    a candidate collection for the model of a second server
index    `querylife-jobs index` writes every change to both collections, each with its own model's vectors
compare  both collections answer sample queries
switch   the candidate becomes the active collection, in one step; clients follow, and ask its server for vectors
back     the collection before the switch becomes active again; it was kept up to date
finish   the collection that is not active is removed

A step that changes the store waits wait_s seconds for an index run to end.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from querylife.artifacts.model_identity import ModelIdentity
from querylife.catalog.reader import load_queries
from querylife.errors import InputFileError
from querylife.metrics import interval, judged_ndcg
from querylife_client import Client
from querylife_client.vector_store import ScannableStore, StoreError, StoreIdentity
from querylife_jobs.stores import Store
from querylife_jobs.stores.store import collection_name

Queries = Mapping[str, Mapping[str, int]]
"""query -> product id -> grade from 0 to 3. Empty inner mappings: no judgements."""


@dataclass(frozen=True)
class Comparison:
    """What sample queries find before and after.

    rows: of the active collection and of the candidate. overlap: mean share of the first k results that both have, and
    its 95% interval. same_first: share of queries whose first result is the same. ndcg_before, ndcg_after: mean nDCG
    over the queries that have judgements (None: there are none). ndcg_change: paired mean difference, and its 95%
    bootstrap interval: where the interval does not hold 0, the models differ.
    """

    queries: int
    k: int
    rows: tuple[int, int]
    overlap: tuple[float, float, float]
    same_first: float
    judged_queries: int
    ndcg_before: float | None
    ndcg_after: float | None
    ndcg_change: tuple[float, float, float] | None


def start(store: Store, model: ModelIdentity, server: str, *, wait_s: float = 0.0) -> str:
    """Make an empty candidate collection for another model. Returns its name. server: host:port that serves it.

    Raises StoreError when a rollout is under way, or when the model is the active one.
    """
    with store.lock(wait_s):
        state = store.state()
        active = store.current().identity()
        if state.candidate or state.previous:
            raise StoreError(f"{store.url}: a rollout is under way; querylife rollout finish ends it")
        if active.fingerprint == model.fingerprint:
            raise StoreError(f"{store.url}: found the same model at {server}: {model.fingerprint}")
        identity = StoreIdentity(
            model.fingerprint, model.embedding_width, model.calibration, active.columns, server, model.name
        )
        if collection_name(identity) in state.collections:  # of a start that was killed
            store.drop(collection_name(identity))
        name = store.create(identity)
        store.write_state(replace(store.state(), candidate=name))
        return name


def switch(store: Store, *, wait_s: float = 0.0) -> None:
    """Make the candidate the active collection. Raises StoreError while it does not hold the same ids."""
    with store.lock(wait_s):
        state = store.state()
        if not state.candidate:
            raise StoreError(f"{store.url}: found no candidate, want one: querylife rollout start")
        _check_complete(store)
        store.write_state(replace(state, active=state.candidate, candidate="", previous=state.active))


def back(store: Store, *, wait_s: float = 0.0) -> None:
    """Make the collection before the switch the active one again; the other is the candidate again."""
    with store.lock(wait_s):
        state = store.state()
        if not state.previous:
            raise StoreError(f"{store.url}: found no earlier collection to go back to")
        store.write_state(replace(state, active=state.previous, candidate=state.active, previous=""))


def finish(store: Store, *, wait_s: float = 0.0) -> None:
    """End a rollout: remove the collection that is not active, and write to one collection only."""
    with store.lock(wait_s):
        state = store.state()
        other = state.candidate or state.previous
        if not other:
            raise StoreError(f"{store.url}: found no rollout to finish")
        store.write_state(replace(state, candidate="", previous=""))
        store.drop(other)


def status(store: Store) -> dict[str, Any]:
    """Which collections there are: role -> name, model, fingerprint, server, rows."""
    state = store.state()
    roles = {"active": state.active, "candidate": state.candidate, "previous": state.previous}
    return {role: _described(store, name) for role, name in roles.items() if name}


def compare(store: Store, client: Client, queries: Queries, k: int) -> Comparison:
    """Search both collections for each query. client: for a collection that names no server of its own."""
    state = store.state()
    other = state.candidate or state.previous
    if not state.active or not other:
        raise StoreError(f"{store.url}: found one collection, want two: querylife rollout start")
    names = (state.active, other) if state.candidate else (other, state.active)
    pair = [store.collection(name) for name in names]
    rankings = [
        [[product.id for product in client.search(query, collection, k)] for query in queries] for collection in pair
    ]
    both = list(zip(*rankings, strict=True))
    overlap = np.array([len(set(before) & set(after)) / max(1, len(before), len(after)) for before, after in both])
    judged = [(grades, before, after) for grades, (before, after) in zip(queries.values(), both, strict=True) if grades]
    gains = np.array(
        [(judged_ndcg(before, grades, k), judged_ndcg(after, grades, k)) for grades, before, after in judged]
    )
    gains = gains[~np.isnan(gains).any(axis=1)] if len(gains) else np.zeros((0, 2))
    return Comparison(
        queries=len(both),
        k=k,
        rows=(pair[0].count(), pair[1].count()),
        overlap=interval(overlap),
        same_first=float(np.mean([before[:1] == after[:1] for before, after in both])),
        judged_queries=len(gains),
        ndcg_before=float(gains[:, 0].mean()) if len(gains) else None,
        ndcg_after=float(gains[:, 1].mean()) if len(gains) else None,
        ndcg_change=interval(gains[:, 1] - gains[:, 0]) if len(gains) else None,
    )


def sample(queries: Path | None, judgements: Path | None) -> dict[str, dict[str, int]]:
    """The queries of a text file, and those of a Parquet file of judgements with their grades."""
    grades: dict[str, dict[str, int]] = {query: {} for query in load_queries(queries)} if queries else {}
    if judgements is None:
        return grades
    try:
        rows = pyarrow.parquet.read_table(judgements, columns=["query", "product_id", "grade"]).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputFileError(f"{judgements}: want Parquet with query, product_id and grade: {error}") from error
    for row in rows:
        grades.setdefault(str(row["query"]), {})[str(row["product_id"])] = int(row["grade"])
    return grades


def _check_complete(store: Store) -> None:
    """Raises StoreError where an index run has not finished both collections, or their ids differ."""
    state = store.state()
    unfinished = set(state.unoptimized) & {state.active, state.candidate}
    active, candidate = (_ids(store.collection(name)) for name in (state.active, state.candidate))
    if unfinished or active != candidate:
        complaint = f"found {candidate[0]} rows in the candidate, want the {active[0]} of the active collection"
        raise StoreError(f"{store.url}: {complaint}, all indexed: run querylife-jobs index")


def _ids(collection: ScannableStore) -> tuple[int, int]:
    """The number of rows and a hash of their ids, whatever their order; in constant memory."""
    count = total = 0
    for ids in collection.scan_ids():
        count += len(ids)
        total += sum(int.from_bytes(hashlib.sha256(row_id.encode()).digest()) for row_id in ids)
    return count, total


def _described(store: Store, name: str) -> dict[str, Any]:
    collection = store.collection(name)
    identity = collection.identity()
    return {
        "collection": name,
        "model": identity.model,
        "fingerprint": identity.fingerprint,
        "server": identity.server,
        "rows": collection.count(),
    }
