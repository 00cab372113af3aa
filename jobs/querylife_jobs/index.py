"""Job: bring a vector store to equal a catalogue: rows that are new, changed or gone, and no others.

Each stored row carries a hash of what it was made of. A run compares hashes, embeds what the ledger has no vector of,
writes the rows that differ and deletes those that are gone; killed at any point, the next run finishes the work. While
a rollout is under way both collections are brought up to date, each with vectors of its own model.
"""

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from querylife.artifacts.model_identity import ModelIdentity
from querylife.errors import FingerprintMismatchError, InputFileError, UnavailableError
from querylife_client import AsyncClient
from querylife_client.urls import UrlGuard
from querylife_client.vector_store import ScannableStore, StoreIdentity
from querylife_jobs import embed
from querylife_jobs.catalogue_stream import Catalogue, CatalogueRow, Scan
from querylife_jobs.connections import connect_triton, wait_ready
from querylife_jobs.image_cache import ImageCache
from querylife_jobs.index_config import IndexConfig, IndexSummary
from querylife_jobs.ledger import Ledger, Record, unit_key
from querylife_jobs.model_check import ModelCheck
from querylife_jobs.progress import Progress
from querylife_jobs.runner import Runner, Unit, evenly
from querylife_jobs.stores import Store, open_store
from querylife_jobs.stores.rows import CONTENT
from querylife_jobs.window import Window

log = logging.getLogger(__name__)
T = TypeVar("T")

CHUNK_ROWS = 512  # in memory, with their pictures
FIRST_WINDOW = 8
RETRY_S = 0.5


@dataclass(frozen=True)
class Target:
    """A collection that the run fills, and the server that makes its vectors. next: collections that follow."""

    name: str
    collection: ScannableStore
    client: AsyncClient
    model: ModelIdentity
    next: tuple[str, ...]


async def run_index(config: IndexConfig) -> list[IndexSummary]:
    """Bring every collection in use to equal the catalogue.

    Raises InputFileError for a catalogue that cannot be used, before anything is written; StoreError for a store that
    refuses; FingerprintMismatchError when the server's model is not the collection's.
    """
    guard = UrlGuard(allowed_hosts=frozenset(config.allowed_hosts) or None)
    cache = config.image_cache or config.beside_ledger(".images")
    images = ImageCache(cache, guard, refresh=config.refresh_images)
    _make_folder(config.ledger_path.parent)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(await asyncio.to_thread(open_store, config.store, refresh_s=0.0))
        stack.enter_context(store.lock())
        catalogue = stack.enter_context(Catalogue(config.catalogue, config.beside_ledger(".run.sqlite"), images))
        scan = await asyncio.to_thread(catalogue.scan)
        ledger = stack.enter_context(Ledger(config.ledger_path))
        reasons = stack.enter_context(config.beside_ledger(".set-aside.jsonl").open("w", encoding="utf-8"))
        summaries = []
        async for target in _targets(config, store, scan):
            catalogue.keep_all()
            run = _IndexRun(config, store, catalogue, scan, ledger, target, reasons)
            summaries.append(await run.run())
    return summaries


async def _targets(config: IndexConfig, store: Store, scan: Scan) -> AsyncIterator[Target]:
    """The active collection and, in a rollout, the other one; in a new store a new collection."""
    in_use = store.state().in_use
    for number, name in enumerate(in_use or ("",)):
        server = store.state().collections[name].server if name else ""
        async with connect_triton(replace(config, server=server or config.server)) as client:
            model = await wait_ready(client, client.model_identity, config.patience_s)
            yield Target(*_prepared(store, name, model, scan), client, model, in_use[number + 1 :])


def _prepared(store: Store, name: str, model: ModelIdentity, scan: Scan) -> tuple[str, ScannableStore]:
    """The collection to fill, with every column of the catalogue. name: "" for that of the model, made if needed."""
    columns = {CONTENT: "text", **scan.columns}
    if not name:
        made = {identity.fingerprint: other for other, identity in store.state().collections.items()}
        identity = StoreIdentity(model.fingerprint, model.embedding_width, model.calibration, columns, model=model.name)
        name = made.get(model.fingerprint) or store.create(identity)
    identity = store.state().collections[name]
    if identity.fingerprint != model.fingerprint:
        subject = f"{store.url}: the server's model differs from the collection's (querylife rollout changes models)"
        raise FingerprintMismatchError(subject, model.fingerprint, identity.fingerprint)
    for column, kind in columns.items():
        if identity.columns.get(column, kind) != kind:
            complaint = f"column {column!r}: found {kind}, want {identity.columns[column]}, as it is in the store"
            raise InputFileError(f"{complaint}; correct the catalogue, or index into a new store")
    if new := {column: kind for column, kind in columns.items() if column not in identity.columns}:
        store.collection(name).add_columns(new)
        store.set_identity(name, replace(identity, columns={**identity.columns, **new}))
    return name, store.collection(name)


class _IndexRun:
    """One collection's run."""

    def __init__(
        self,
        config: IndexConfig,
        store: Store,
        catalogue: Catalogue,
        scan: Scan,
        ledger: Ledger,
        target: Target,
        reasons: io.TextIOBase | Any,
    ) -> None:
        self._config = config
        self._store = store
        self._catalogue = catalogue
        self._ledger = ledger
        self._target = target
        self._check = ModelCheck(target.client, target.model)
        self._reasons = reasons
        self._window = Window(min(FIRST_WINDOW, config.max_in_flight), config.max_in_flight)
        self._progress = Progress("rows")
        self._progress.start(scan.rows)
        self._summary = IndexSummary(target.name, scan.rows)

    async def run(self) -> IndexSummary:
        writing: asyncio.Task[None] | None = None
        chunks = self._catalogue.chunks(CHUNK_ROWS)
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                write = await self._prepare(chunk)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(write()) if write else None
                self._progress.advance(len(chunk), int(self._window.size))
            if writing is not None:
                await writing
        finally:
            if writing is not None:
                writing.cancel()
        await self._delete_gone()
        if self._target.name in (await self._patiently(self._store.state)).unoptimized:
            await self._patiently(self._target.collection.optimize)
            await self._patiently(self._note_written, False)
        await self._patiently(self._activate)
        self._summary.seconds = self._progress.seconds
        return self._summary

    async def _prepare(self, chunk: Sequence[CatalogueRow]) -> Callable[[], Any] | None:
        """Embed what has changed; returns what writes it, or None."""
        stored = await self._patiently(self._target.collection.contents, [row.product.id for row in chunk])
        keys = [self._key(row) for row in chunk]
        contents = [content_hash(key, row) for key, row in zip(keys, chunk, strict=True)]
        changed = [
            (row, key, content)
            for row, key, content in zip(chunk, keys, contents, strict=True)
            if stored.get(row.product.id) != content
        ]
        for row in chunk:
            if row.problem:
                self._tell(row.product.id, "picture_missing", row.problem)
        records = await self._embed({key: row for row, key, _ in changed})
        usable = []
        for row, key, content in changed:
            vector = _vector(records[key])
            if vector is None:
                self._set_aside(row, records[key])
            else:
                usable.append((row, content, vector))
                if records[key].fault:
                    self._tell(row.product.id, records[key].fault, records[key].detail)
        if not usable:
            return None
        updated = sum(row.product.id in stored for row, _, _ in usable)
        self._summary.updated += updated
        self._summary.inserted += len(usable) - updated
        return lambda: self._write(usable)

    def _key(self, row: CatalogueRow) -> str:
        product = row.product
        return embed.vector_key(self._target.model, product.title, product.product_type, product.image)

    async def _embed(self, wanted: dict[str, CatalogueRow]) -> dict[str, Record]:
        """The ledger's record of each key, after embedding those that have none."""
        client = self._target.client
        units = [Unit(key, row.product) for key, row in wanted.items()]
        runner = Runner(
            lambda some: embed.work(client, some, self._check),
            lambda: wait_ready(client, client.model_identity, self._config.patience_s),
            self._ledger,
            window=self._window,
            split=evenly(embed.UNITS_PER_REQUEST),
        )
        summary = await runner.run(units, Progress("", io.StringIO()))
        self._summary.embedded += summary.done
        return {record.key: record for record in self._ledger.find(wanted)}

    async def _write(self, rows: Sequence[tuple[CatalogueRow, str, Any]]) -> None:
        await self._patiently(self._note_written, True)
        ids = [row.product.id for row, _, _ in rows]
        vectors = np.stack([vector for _, _, vector in rows])
        attributes = [{**row.attributes, CONTENT: content} for row, content, _ in rows]
        fingerprint = self._target.model.fingerprint
        upsert = self._target.collection.upsert
        await self._patiently(lambda: upsert(ids, vectors, attributes, fingerprint=fingerprint))

    def _set_aside(self, row: CatalogueRow, record: Record) -> None:
        fault = record.fault or "product_empty"
        self._catalogue.set_aside([row.product.id])
        self._summary.set_aside[fault] += 1
        self._tell(row.product.id, fault, record.detail or "found neither title nor picture")

    def _tell(self, row_id: str, fault: str, detail: str) -> None:
        line = {"collection": self._target.name, "id": row_id, "fault": fault, "detail": detail}
        self._reasons.write(json.dumps(line, ensure_ascii=False) + "\n")

    async def _delete_gone(self) -> None:
        gone = await self._patiently(self._gone)
        if gone:
            await self._patiently(self._note_written, True)
        for start in range(0, len(gone), CHUNK_ROWS):
            await self._patiently(self._target.collection.delete, gone[start : start + CHUNK_ROWS])
        self._summary.deleted = len(gone)

    def _gone(self) -> list[str]:
        """The stored ids that the catalogue does not have."""
        return [row_id for piece in self._target.collection.scan_ids() for row_id in self._catalogue.not_in(piece)]

    def _activate(self) -> None:
        """In a new store, the collection becomes the active one now that it is complete."""
        state = self._store.state()
        if not state.active:
            self._store.write_state(replace(state, active=self._target.name))

    def _note_written(self, is_unfinished: bool) -> None:
        """Keep in the store that this collection, and those that follow, are not finished.

        A killed job's successor finishes them; a rollout does not switch to one that lacks what another has got.
        """
        state = self._store.state()
        if is_unfinished:
            wanted = {*state.unoptimized, self._target.name, *self._target.next}
        else:
            wanted = {*state.unoptimized} - {self._target.name}
        if wanted != set(state.unoptimized):
            self._store.write_state(replace(state, unoptimized=tuple(sorted(wanted))))

    async def _patiently(self, action: Callable[..., T], *arguments: Any) -> T:
        """Call a store, again and again while it does not answer: every call can be repeated."""
        end = asyncio.get_running_loop().time() + self._config.patience_s
        while True:
            try:
                return await asyncio.to_thread(action, *arguments)
            except UnavailableError as error:
                if asyncio.get_running_loop().time() > end:
                    raise
                log.warning("the store does not answer, trying again: %s", error)
            await asyncio.sleep(RETRY_S)


def content_hash(vector_key: str, row: CatalogueRow) -> str:
    """What a stored row is made of: its vector's key and its attributes."""
    return unit_key(vector_key, json.dumps(row.attributes, sort_keys=True, ensure_ascii=False))


def _vector(record: Record) -> Any:
    """[width] float32; None where nothing was usable."""
    header, _, vector = record.result.partition(b"\n")
    return np.frombuffer(vector, "<f4") if header else None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputFileError(f"{folder}: cannot be written: {error}") from error
