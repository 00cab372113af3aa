"""From products and queries to descriptions and verdicts: asyncio over small protocols, no gRPC and no vLLM.

Generation is per product and per query, never per pair: a batch of Q queries and P products costs at most Q + P
generations, and those cached or in flight cost nothing.
"""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genfilt_server.gather import gather
from genfilt_server.generation.prompts import Description, Prompt
from genfilt_server.judge.evidence import Evidence, Judge, Judgement
from querylife.errors import ItemError, ItemFault, QuerylifeError
from querylife.lru_cache import LruCache
from querylife.preprocessing.text import checked_text

READ_CHARACTERS = 300  # of a title or a query; more would crowd the prompt's examples out of the context


@dataclass(frozen=True)
class Usage:
    """Tokens spent on one answer."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True)
class Generated:
    """JSON text that satisfies the schema. confidence: mean log-probability per token, at most 0."""

    text: str
    confidence: float
    usage: Usage


class GenerationError(QuerylifeError):
    """The generator could not answer this prompt. Other prompts are unaffected."""


class Generator(Protocol):
    """Continues prompts with JSON held by the description schema."""

    reads_images: bool

    async def generate(self, prompt: str, image: bytes | None) -> Generated:
        """Describe what the prompt asks for. image: an encoded picture, or None.

        Raises GenerationError, ItemError where the picture cannot be decoded, UnavailableError when the engine is gone.
        """
        ...


class Embedder(Protocol):
    """Turns short texts into unit vectors."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, width] float32, unit rows."""
        ...


@dataclass(frozen=True)
class RequestedProduct:
    """One product of a request. Texts are UTF-8 bytes, empty where missing; image is an encoded picture, or empty."""

    title: bytes = b""
    image: bytes = b""
    product_type: bytes = b""


@dataclass(frozen=True)
class Described:
    """A description. confidence: see Generated. usage: the tokens it cost, none where it was cached."""

    description: Description
    confidence: float
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class Failure:
    """Why one item has no answer. fault: an ItemFault's value, or "generation_failed"."""

    fault: str
    detail: str


class TypeNamer(Protocol):
    """Names a product's type from its title."""

    async def name(self, title: str) -> str: ...


class Describer:
    """Describes products and queries, each distinct one once.

    cache_size: descriptions kept; the least recently used is dropped. type_namer: takes the generator's place for the
    product type, where a product has a title. cache_hits, generated: counts since the start.
    """

    def __init__(
        self, generator: Generator, prompt: Prompt, cache_size: int, type_namer: TypeNamer | None = None
    ) -> None:
        self.prompt = prompt
        self.cache_hits = 0
        self.generated = 0
        self._generator = generator
        self._type_namer = type_namer
        self._cache: LruCache[bytes, Described] = LruCache(cache_size)
        self._flights: dict[bytes, _Flight] = {}

    async def product(self, product: RequestedProduct) -> Described | Failure:
        """Describe a product. Raises UnavailableError when the engine is gone; an item's own fault is a Failure."""
        try:
            title, shop_type = checked_text(product.title), checked_text(product.product_type)
            image = product.image if self._generator.reads_images else b""
            if not title.strip() and not shop_type.strip() and not image:
                wanted = "a title, a product type or an image" if self._generator.reads_images else "a title"
                raise ItemError(ItemFault.PRODUCT_EMPTY, f"found no input that this generator reads, want {wanted}")
        except ItemError as error:
            return Failure(error.fault.value, error.detail)
        prompt = self.prompt.of_title(title[:READ_CHARACTERS], shop_type[:READ_CHARACTERS])
        described = await self._describe(prompt, image or None)
        if self._type_namer is None or isinstance(described, Failure) or not title.strip():
            return described
        named = await self._type_namer.name(title[:READ_CHARACTERS])
        return replace(described, description=replace(described.description, product_type=named))

    async def query(self, query: bytes) -> Described | Failure:
        """Describe what a query, UTF-8 bytes, asks for. Errors: as product()."""
        try:
            text = checked_text(query)
            if not text.strip():
                raise ItemError(ItemFault.QUERY_EMPTY, "found no text, want a query")
        except ItemError as error:
            return Failure(error.fault.value, error.detail)
        return await self._describe(self.prompt.of_query(text[:READ_CHARACTERS]), None)

    async def _describe(self, prompt: str, image: bytes | None) -> Described | Failure:
        key = hashlib.sha256(prompt.encode() + b"\0" + (image or b"")).digest()
        if (cached := self._cache.get(key)) is not None:
            self.cache_hits += 1
            return Described(cached.description, cached.confidence)
        try:
            described = await self._join_flight(key, prompt, image)
        except ItemError as error:
            return Failure(error.fault.value, error.detail)
        except GenerationError as error:
            return Failure("generation_failed", str(error))
        return described

    async def _join_flight(self, key: bytes, prompt: str, image: bytes | None) -> Described:
        """Wait for the one generation of this key. It is cancelled when the last caller that waits has left."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(self._generate(key, prompt, image)))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if flight.waiting == 0:
                flight.task.cancel()  # no effect where it is done
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def _generate(self, key: bytes, prompt: str, image: bytes | None) -> Described:
        generated = await self._generator.generate(prompt, image)
        try:
            fields: dict[str, Any] = json.loads(generated.text)
            description = Description(**fields)
        except (ValueError, TypeError) as error:  # the schema forbids it, unless the answer was cut short
            raise GenerationError(f"found {generated.text!r}, want a description") from error
        self.generated += 1
        described = Described(description, generated.confidence, generated.usage)
        self._cache.put(key, described)
        return described


@dataclass
class _Flight:
    """One generation that several callers wait for."""

    task: "asyncio.Future[Described]"
    waiting: int = 0


@dataclass(frozen=True)
class Judged:
    """A verdict on one pair, with the product's description."""

    judgement: Judgement
    description: Description
    usage: Usage


@dataclass(frozen=True)
class Mask:
    """Every query against every product. judgements: [queries][products]; failures: by index of query or product."""

    judgements: list[list[Judgement]]
    query_failures: dict[int, Failure]
    product_failures: dict[int, Failure]
    usage: Usage


class Filter:
    """Judges whether products answer queries, from descriptions of both and the similarity of their texts."""

    def __init__(self, describer: Describer, embedder: Embedder, judge: Judge) -> None:
        self._describer = describer
        self._embedder = embedder
        self._judge = judge

    async def pair(self, query: bytes, product: RequestedProduct) -> Judged | Failure:
        """Judge one pair. Raises UnavailableError when the engine is gone."""
        mask = await self.batch([query], [product])
        if failures := [*mask.query_failures.values(), *mask.product_failures.values()]:
            return failures[0]
        described = await self._describer.product(product)  # cached a moment ago
        if isinstance(described, Failure):
            return described
        return Judged(mask.judgements[0][0], described.description, mask.usage)

    async def batch(self, queries: Sequence[bytes], products: Sequence[RequestedProduct]) -> Mask:
        """Judge every query against every product. Raises UnavailableError when the engine is gone."""
        evidence, asked, offered = await self.evidence(queries, products)
        usage = sum((each.usage for each in (*asked, *offered) if isinstance(each, Described)), Usage())
        return Mask(
            judgements=[[self._judge.judge(cell) if cell else Judge.abstain() for cell in row] for row in evidence],
            query_failures={i: each for i, each in enumerate(asked) if isinstance(each, Failure)},
            product_failures={i: each for i, each in enumerate(offered) if isinstance(each, Failure)},
            usage=usage,
        )

    async def evidence(
        self, queries: Sequence[bytes], products: Sequence[RequestedProduct]
    ) -> tuple[list[list[Evidence | None]], list[Described | Failure], list[Described | Failure]]:
        """Evidence on each pair, [queries][products], None where a side has a fault; descriptions of both sides.

        Raises UnavailableError when the engine is gone.
        """
        described = await gather(
            [
                *(self._describer.query(query) for query in queries),
                *(self._describer.product(product) for product in products),
            ]
        )
        asked, offered = described[: len(queries)], described[len(queries) :]
        texts = [_texts(query, each) for query, each in zip(queries, asked, strict=True)]
        texts += [_texts(product.title, each) for product, each in zip(products, offered, strict=True)]
        distinct = list(dict.fromkeys(text for item in texts for text in item))
        vectors = dict(zip(distinct, await self._embedder.embed(distinct), strict=True))
        stacked = np.stack([[vectors[text] for text in item] for item in texts])  # [items, 3, width]
        return _evidence(asked, offered, stacked[: len(queries)], stacked[len(queries) :]), asked, offered


def _evidence(
    asked: Sequence[Described | Failure],
    offered: Sequence[Described | Failure],
    asked_vectors: NDArray[np.float32],
    offered_vectors: NDArray[np.float32],
) -> list[list[Evidence | None]]:
    """asked_vectors: [queries, 3, width], offered_vectors: [products, 3, width], in the order of _texts."""
    with_title = asked_vectors[:, 0] @ offered_vectors[:, 0].T  # [queries, products]
    with_phrase = asked_vectors[:, 0] @ offered_vectors[:, 1].T
    of_types = asked_vectors[:, 2] @ offered_vectors[:, 2].T
    return [
        [
            None
            if isinstance(query, Failure) or isinstance(product, Failure)
            else Evidence(
                query.description,
                product.description,
                title_similarity=float(with_title[row, column]),
                phrase_similarity=float(with_phrase[row, column]),
                type_similarity=float(of_types[row, column]),
                query_confidence=query.confidence,
                product_confidence=product.confidence,
            )
            for column, product in enumerate(offered)
        ]
        for row, query in enumerate(asked)
    ]


def _texts(text: bytes, described: Described | Failure) -> tuple[str, str, str]:
    """What is embedded of an item: its own text, its description as a phrase, its described type."""
    if isinstance(described, Failure):
        return ("", "", "")
    phrase = described.description.phrase()
    return (checked_text(text)[:READ_CHARACTERS] or phrase, phrase, described.description.product_type)
