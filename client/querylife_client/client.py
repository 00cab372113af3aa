"""The blocking client. AsyncClient (async_client.py) has the same methods, arguments and errors."""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from querylife.artifacts.model_identity import ModelIdentity
from querylife.errors import FingerprintMismatchError, ServerFaultError
from querylife_client import search as _search
from querylife_client._requests import batches as _batches
from querylife_client._requests import decoding as _decoding
from querylife_client._requests import genfilt as _genfilt
from querylife_client._requests import ranking as _ranking
from querylife_client._requests import results as _results
from querylife_client._rpc.calls import SERVER_METADATA, Work, span
from querylife_client._rpc.transport import Servers
from querylife_client.config import ClientConfig
from querylife_client.descriptions import Description, FilteredPairs, FilteredTile, Judgement
from querylife_client.metadata import GeneratorMetadata, ServerMetadata, read_generator, read_identity, read_metadata
from querylife_client.products import EmbeddedProducts, Embeddings, Product, Text
from querylife_client.query_cache import Claim, QueryCache
from querylife_client.retry import Counts, Deadline, Deadlines, Statistics, call_deadlines
from querylife_client.vector_store import Collections, StoreError, VectorStore, Where

TIMEOUT_S = 30.0


class Client:
    """Calls Triton and GenFilt from threads; one client serves any number of them.

    A call splits what is too large for one request, and raises a ServiceError (querylife_client.errors) or answers
    completely. Each request ends within the client's timeout_s, and the whole call within the call's own timeout_s,
    where one is given. A method whose server has no address here raises ContractError.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        genfilt: str | None = None,
        timeout_s: float = TIMEOUT_S,
        config: ClientConfig | None = None,
    ) -> None:
        """address, genfilt: host:port of either server; a list or a name may stand for several. timeout_s: seconds for
        each request. Raises ConfigError for an address that cannot be read, OSError for a certificate.
        """
        self._address = address
        self._others: dict[str, Client] = {}
        self._others_lock = threading.Lock()
        self._config = config or ClientConfig()
        self._timeout_s = Deadline(timeout_s).timeout_s
        self._statistics = Statistics()
        self._cache = QueryCache(self._config.query_cache_items) if self._config.query_cache_items else None
        self._decoder = _decoding.ImageDecoder(self._config.decode_threads) if self._config.decode == "client" else None
        self._servers = Servers(address, genfilt, self._config, self._statistics)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls that are under way raise ContractError."""
        self._servers.close()
        if self._decoder is not None:
            self._decoder.close()
        for other in self._others.values():
            other.close()

    def embed_queries(self, queries: Sequence[Text], *, timeout_s: float | None = None) -> Embeddings:
        """[n, D] float32, unit rows. Raises InvalidRequestError, naming index and fault, for an unusable query."""
        with span("embed_queries", items=len(queries)):
            return self._embed_queries(queries, self._deadlines(timeout_s))

    def embed_products(self, products: Sequence[Product], *, timeout_s: float | None = None) -> EmbeddedProducts:
        """Vectors of the products; what is wrong with single ones is in .errors, and harms no other."""
        deadlines = self._deadlines(timeout_s)
        with span("embed_products", items=len(products)):
            return self._embed_products(products, deadlines)

    def stream_products(
        self, products: Iterable[Product], *, timeout_s: float | None = None
    ) -> Iterator[EmbeddedProducts]:
        """embed_products for catalogues of any length: reads products as needed, yields one piece per request.

        timeout_s holds for each request. Indices in a piece's .errors count from the start of that piece.
        """
        deadlines = self._request_deadlines(timeout_s)
        batches = self._product_batches(products, deadlines)
        answers = self._servers.triton.answers(batches, deadlines, streamed=True)
        with contextlib.closing(answers):
            for answer in answers:
                yield _results.join_products([answer])

    def score(
        self,
        query: Text | Sequence[Text],
        products: Sequence[Product] | None = None,
        *,
        vectors: Embeddings | EmbeddedProducts | None = None,
        timeout_s: float | None = None,
    ) -> NDArray[np.float32]:
        """[n] float32 in [0, 1]: how likely each product answers the query. NaN where a product has nothing usable.

        query: one for all products (InvalidRequestError when it is unusable), or a list with one for each (NaN). Give
        either products, or their vectors: [n, D] from embed_products. Raises FingerprintMismatchError for vectors of
        another model than the server's; with vectors, every unusable query is an InvalidRequestError.
        """
        _ranking.check_arguments(products, vectors)
        deadlines = self._deadlines(timeout_s)
        with span("score", items=len(products if vectors is None else vectors)):  # type: ignore[arg-type]  # checked
            if vectors is None:
                return self._score(query, products or [], deadlines)
            queries = [query] if isinstance(query, (str, bytes)) else query
            stored = _ranking.checked_rows(vectors, queries)
            query_vectors = self._embed_queries(queries, deadlines)
            _ranking.check_models(query_vectors, stored)
            return self._score_vectors(query_vectors, stored, deadlines)

    def rank(
        self,
        query: Text,
        products: Sequence[Product] | None = None,
        *,
        vectors: _ranking.StoredVectors | None = None,
        top_k: int | None = None,
        timeout_s: float | None = None,
    ) -> list[tuple[int, float]]:
        """[(index, score), ...], best first; products with nothing usable are left out.

        Give either products, or their vectors: [n, D] from embed_products, or a VectorIndex of such rows. With
        vectors the call costs one query vector, and scores for the top_k. Raises FingerprintMismatchError for vectors
        of another model than the server's.
        """
        _ranking.check_arguments(products, vectors, top_k)
        deadlines = self._deadlines(timeout_s)
        with span("rank", items=len(products if vectors is None else vectors)):  # type: ignore[arg-type]  # checked
            if vectors is None:
                return _ranking.best(self._score(query, products or [], deadlines), top_k)
            stored = _ranking.checked_vectors(vectors)
            query_vectors = self._embed_queries([query], deadlines)
            _ranking.check_models(query_vectors, stored)
            indices = _ranking.nearest(query_vectors[0], stored, top_k)
            scores = self._score_vectors(query_vectors, Embeddings(stored[indices], stored.fingerprint), deadlines)
            return _ranking.best(scores, top_k, indices)

    def search(
        self,
        query: Text,
        store: VectorStore | Collections,
        k: int = 10,
        *,
        where: Where | None = None,
        hybrid: bool = False,
        timeout_s: float | None = None,
    ) -> _search.SearchResults:
        """The k products of a vector store that answer a query best, with calibrated scores.

        store: from querylife_jobs.stores.open_store, or any VectorStore. where: conditions on its columns (see
        querylife_client.vector_store). hybrid: fuse the ranking by vectors with the store's full-text search.
        Raises FingerprintMismatchError when the server and the store are of two models, and what the store raises.
        """
        deadlines = self._deadlines(timeout_s)
        with span("search", items=k):
            for attempt in range(_search.ATTEMPTS):
                try:
                    collection = _search.active(store)
                    server = self._for_store(collection.identity().server)
                    vectors = server._embed_queries([query], deadlines)
                    return _search.find(
                        collection, query, vectors[0], vectors.fingerprint, k=k, where=where, hybrid=hybrid
                    )
                except (FingerprintMismatchError, StoreError):
                    if attempt + 1 == _search.ATTEMPTS or not hasattr(store, "refresh"):
                        raise
                    store.refresh()
            raise AssertionError

    def describe(self, products: Sequence[Product], *, timeout_s: float | None = None) -> list[Description]:
        """What each product is, from GenFilt. One that cannot be described says why in .error."""
        deadlines = self._deadlines(timeout_s)
        with span("describe", items=len(products)):
            batches = _genfilt.describe_batches(products, self._config.genfilt_limits)
            work = Work(len(products), "products", "stream_descriptions")
            return list(chain.from_iterable(self._servers.genfilt.collect(batches, deadlines, work)))

    def stream_descriptions(
        self, products: Iterable[Product], *, timeout_s: float | None = None
    ) -> Iterator[list[Description]]:
        """describe for catalogues of any length: yields the descriptions of one request after another, in order.

        timeout_s holds for each request.
        """
        batches = _genfilt.describe_batches(products, self._config.genfilt_limits)
        return self._servers.genfilt.answers(batches, self._request_deadlines(timeout_s), streamed=True)

    def judge(
        self, queries: Sequence[Text], products: Sequence[Product], *, timeout_s: float | None = None
    ) -> list[Judgement]:
        """Whether each product answers the query in the same place, from GenFilt.

        Returns a judgement for each pair, in order; one that cannot be judged says why in .error. Raises ValueError
        unless there is one query for each product, InvalidRequestError for a query that cannot be sent.
        """
        deadlines = self._deadlines(timeout_s)
        with span("judge", items=len(products)):
            batches = _genfilt.judge_batches(queries, products, self._config.genfilt_limits)
            work = Work(len(products), "pairs", "stream_judgements")
            return list(chain.from_iterable(self._servers.genfilt.collect(batches, deadlines, work)))

    def stream_judgements(
        self, queries: Sequence[Text], products: Sequence[Product], *, timeout_s: float | None = None
    ) -> Iterator[list[Judgement]]:
        """judge, yielding the judgements of one request after another, in order.

        timeout_s holds for each request. Raises what judge raises.
        """
        batches = _genfilt.judge_batches(queries, products, self._config.genfilt_limits)
        return self._servers.genfilt.answers(batches, self._request_deadlines(timeout_s), streamed=True)

    def filter_pairs(
        self, queries: Sequence[Text], products: Sequence[Product], *, timeout_s: float | None = None
    ) -> FilteredPairs:
        """Which products answer which queries, every pair of them, from GenFilt.

        Returns [queries, products] arrays; what is wrong with single queries and products is in the errors beside
        them. Raises InvalidRequestError for a query that cannot be sent.
        """
        deadlines = self._deadlines(timeout_s)
        with span("filter_pairs", items=len(queries) * len(products)):
            pairs = FilteredPairs.unfilled(len(queries), len(products))
            batches = _genfilt.filter_batches(queries, products, self._config.genfilt_limits)
            work = Work(len(pairs), "pairs", "stream_filtered_pairs")
            for tile in self._servers.genfilt.collect(batches, deadlines, work):
                pairs.fill(tile)
            return pairs

    def stream_filtered_pairs(
        self, queries: Sequence[Text], products: Sequence[Product], *, timeout_s: float | None = None
    ) -> Iterator[FilteredTile]:
        """filter_pairs, yielding the tile of one request after another.

        timeout_s holds for each request. Raises what filter_pairs raises.
        """
        batches = _genfilt.filter_batches(queries, products, self._config.genfilt_limits)
        return self._servers.genfilt.answers(batches, self._request_deadlines(timeout_s), streamed=True)

    def ready(self, *, timeout_s: float = 5.0) -> bool:
        """Whether every server of this client answers a real request within timeout_s (seconds).

        Raises CredentialsError where a server refuses the token or the certificate: waiting does not help.
        """
        return self._servers.are_ready(timeout_s)

    def metadata(self, *, timeout_s: float | None = None) -> ServerMetadata:
        """Which server answers, and with which model. Embeds a query to learn the width of the vectors."""
        deadlines = self._deadlines(timeout_s)
        probe = self._embed_uncached([_batches.PROBE], deadlines)
        response = self._servers.triton.call(SERVER_METADATA, SERVER_METADATA.message(), deadlines())
        return read_metadata(response, probe)

    def model_identity(self, *, timeout_s: float | None = None) -> ModelIdentity:
        """The model that the server serves now. Raises ServerFaultError where the server does not say."""
        transport = self._servers.triton
        response = transport.call(SERVER_METADATA, SERVER_METADATA.message(), self._deadlines(timeout_s)())
        identity = read_identity(response)
        if identity is None:
            raise ServerFaultError(f"{transport.address}: found no model identity, want `querylife serve`")
        return identity

    def generator_metadata(self, *, timeout_s: float | None = None) -> GeneratorMetadata:
        """What GenFilt answers with now: its generator, prompts and judge."""
        message, deadline = _genfilt.METADATA.message(), self._deadlines(timeout_s)()
        return read_generator(self._servers.genfilt.call(_genfilt.METADATA, message, deadline))

    @property
    def counts(self) -> Counts:
        """Requests, retries and hedges so far."""
        return self._statistics.counts()

    def _for_store(self, address: str) -> "Client":
        """The client of the Triton that makes query vectors for a collection: this one, or one of another address."""
        if not address or address == self._address:
            return self
        with self._others_lock:
            if address not in self._others:
                self._others[address] = Client(address, timeout_s=self._timeout_s, config=self._config)
            return self._others[address]

    def _embed_queries(self, queries: Sequence[Text], deadlines: Deadlines) -> Embeddings:
        model = self._servers.triton.model(deadlines()) if self._cache is not None and queries else None
        if self._cache is None or model is None:  # a server that does not name its model is not cached
            return self._embed_uncached(queries, deadlines)
        claim = self._cache.claim(queries, model)
        try:
            self._fulfil(claim, deadlines)
        except Exception:  # of another caller's request; or it names an index among the missing queries
            return self._embed_uncached(queries, deadlines)
        self._statistics.add("cached", len(queries) - len(claim.missing))
        return claim.stack()

    def _embed_products(self, products: Sequence[Product], deadlines: Deadlines) -> EmbeddedProducts:
        batches = self._product_batches(products, deadlines)
        work = Work(len(products), "products", "stream_products")
        return _results.join_products(self._servers.triton.collect(batches, deadlines, work))

    def _product_batches(self, products: Iterable[Product], deadlines: Deadlines) -> Iterator[_batches.RequestBatch]:
        if self._decoder is None:
            return _batches.product_batches(products, self._config.limits)
        served = self._servers.triton.model(deadlines())
        return self._decoder.batches(products, self._config.limits, served)

    def _fulfil(self, claim: Claim, deadlines: Deadlines) -> None:
        """Ask for the claim's missing vectors, and wait for those that other callers have asked for."""
        with claim.reported():
            claim.fulfil(self._embed_uncached(claim.missing, deadlines))
            for future in claim.futures:
                future.result(deadlines().check())

    def _embed_uncached(self, queries: Sequence[Text], deadlines: Deadlines) -> Embeddings:
        batches = _batches.query_batches(queries, self._config.limits)
        work = Work(len(queries), "queries")
        return _results.join_queries(self._servers.triton.collect(batches, deadlines, work))

    def _score(
        self, query: Text | Sequence[Text], products: Sequence[Product], deadlines: Deadlines
    ) -> NDArray[np.float32]:
        if self._decoder is not None and isinstance(query, (str, bytes)):
            query_vectors = self._embed_queries([query], deadlines)
            embedded = self._embed_products(products, deadlines).vectors
            _ranking.check_models(query_vectors, embedded)  # the server may have been replaced in between
            return self._score_vectors(query_vectors, embedded, deadlines)
        batches = _batches.score_batches(query, products, self._config.limits)
        answers = self._servers.triton.collect(batches, deadlines, Work(len(products), "products"))
        if isinstance(query, (str, bytes)):
            _results.check_one_query(answers)
        return _results.join_scores(answers)

    def _score_vectors(self, queries: Embeddings, products: Embeddings, deadlines: Deadlines) -> NDArray[np.float32]:
        """queries: [1, D] or [n, D]. products: [n, D]. Returns [n] float32."""
        batches = _batches.relevance_batches(queries, products, self._config.limits)
        work = Work(len(products), "products")
        answers = self._servers.triton.collect(batches, deadlines, work)
        return _results.join_scores(answers, vectors_of=products.fingerprint)

    def _deadlines(self, timeout_s: float | None) -> Deadlines:
        """Of one call: for the whole of it where the caller gives timeout_s, otherwise for each request."""
        return call_deadlines(timeout_s, self._timeout_s)

    def _request_deadlines(self, timeout_s: float | None) -> Deadlines:
        return call_deadlines(None, self._timeout_s if timeout_s is None else timeout_s)
