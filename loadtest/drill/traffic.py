"""Callers of a drill: search and rerank over HTTP, vectors over gRPC. Every answer is compared with the first one."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from loadtest.drill.stack import Stack
from querylife.catalog.sample_catalog import drawn_products
from querylife.errors import QuerylifeError
from querylife_client import Client, Product

QUERIES = ("red dress", "blue shirt", "black watch", "green backpack", "white sandals")
DOCUMENTS = ["Red cotton dress", "Blue slim fit shirt", "Black analog watch"]
TOLERANCE = 1e-3
PAUSE_S = 0.05

Answer = Any


class Traffic:
    """Three threads of callers. counts: (kind, "right" or "wrong" or "failed") -> answers.

    with_pictures: a fourth one embeds products with pictures.
    """

    def __init__(self, stack: Stack, *, with_pictures: bool = False) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self.last_right: dict[str, float] = {}
        self._url = stack.gateway_url
        self._https = stack.credentials.https()
        self._client = Client(stack.addresses, timeout_s=10, config=stack.credentials.client_config())
        self.kinds: dict[str, Callable[[str], Answer]] = {
            "search": self._search,
            "rerank": self._rerank,
            "embed": self._embed,
        }
        if with_pictures:
            self._pictures = [product.image for product in drawn_products()]
            self.kinds["product"] = self._embed_product
        self._right = {kind: {query: call(query) for query in QUERIES} for kind, call in self.kinds.items()}
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in self.kinds]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def all_right_since(self, moment: float) -> bool:
        """Whether every kind of caller has had a right answer after this moment (time.monotonic)."""
        return all(self.last_right.get(kind, 0.0) > moment for kind in self.kinds)

    def _run(self, kind: str) -> None:
        number = 0
        while not self._over.wait(PAUSE_S):
            query = QUERIES[number % len(QUERIES)]
            number += 1
            asked = time.monotonic()
            try:
                answer = self.kinds[kind](query)
            except (OSError, QuerylifeError, ValueError) as error:
                self.counts[kind, "failed"] += 1
                self.errors[f"{kind}: {error}"[:160]] += 1
                continue
            if _same(answer, self._right[kind][query]):
                self.counts[kind, "right"] += 1
                self.last_right[kind] = asked
            else:
                self.counts[kind, "wrong"] += 1

    def _search(self, query: str) -> Answer:
        products = self._post("/v1/search", {"query": query, "k": 5, "correct": False})["products"]
        return {product["id"]: product["score"] for product in products}

    def _rerank(self, query: str) -> Answer:
        results = self._post("/rerank", {"query": query, "documents": DOCUMENTS})["results"]
        return {str(result["index"]): result["relevance_score"] for result in results}

    def _embed(self, query: str) -> Answer:
        return {str(axis): float(value) for axis, value in enumerate(self._client.embed_queries([query])[0])}

    def _embed_product(self, query: str) -> Answer:
        product = Product(title=query, image=self._pictures[QUERIES.index(query)])
        return {str(axis): float(value) for axis, value in enumerate(self._client.embed_products([product]).vectors[0])}

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=20, context=self._https) as answer:
            return json.load(answer)


def _same(answer: dict[str, float], right: dict[str, float]) -> bool:
    if answer.keys() != right.keys():
        return False
    return bool(np.allclose([answer[key] for key in right], list(right.values()), atol=TOLERANCE))
