"""Searches of a rollout drill, from threads, an event loop and over HTTP. Each answer must be of one model alone."""

import asyncio
import itertools
import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from loadtest.drill.versions import QUERIES, Expectation
from querylife.errors import QuerylifeError
from querylife_client import AsyncClient, Client, SearchResults
from querylife_jobs.stores import open_store

K = 5
TOLERANCE = 1e-4  # of a cosine: a server's batches differ
Answer = tuple[str, dict[str, float]]  # fingerprint; product id -> cosine, best first


class Searches:
    """kinds of callers, each in a thread of its own. No client is ever told of a rollout."""

    def __init__(self, url: str, server: str, gateway_url: str, models: list[Expectation], threads: int) -> None:
        """server: what the clients are made with."""
        self.errors: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()  # fingerprint -> answers
        self.last: dict[str, str] = {}  # caller -> fingerprint of its last answer
        self._url, self._server, self._gateway_url = url, server, gateway_url
        self._models = {model.fingerprint: model for model in models}
        self._over = threading.Event()
        callers: list[tuple[str, Callable[[str], None]]] = [(f"thread {n}", self._blocking) for n in range(threads)]
        callers += [("event loop", lambda name: asyncio.run(self._asynchronous(name))), ("gateway", self._http)]
        self._threads = [threading.Thread(target=call, args=(name,), name=name) for name, call in callers]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, fingerprint: str, limit_s: float) -> float:
        """Until every caller's last answer is of this model; returns after how many seconds. Raises TimeoutError."""
        begun = time.monotonic()
        while any(self.last.get(thread.name) != fingerprint for thread in self._threads):
            if time.monotonic() > begun + limit_s:
                raise TimeoutError(f"found {self.last}, want {fingerprint}; errors: {dict(self.errors)}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def _blocking(self, name: str) -> None:
        with open_store(self._url) as store, Client(self._server) as client:
            for query in self._queries():
                self._record(name, query, lambda query: _answer(client.search(query, store, K)))

    async def _asynchronous(self, name: str) -> None:
        with open_store(self._url) as store:
            async with AsyncClient(self._server) as client:
                for query in self._queries():
                    try:
                        answer = _answer(await client.search(query, store, K))
                    except QuerylifeError as error:
                        self.errors[f"{name}: {error}"[:200]] += 1
                    else:
                        self.check(name, query, answer)

    def _http(self, name: str) -> None:
        for query in self._queries():
            self._record(name, query, self._post)

    def _post(self, query: str) -> Answer:
        body = json.dumps({"query": query, "k": K, "correct": False}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._gateway_url}/v1/search", body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            products = json.load(response)["products"]
            return response.headers["x-model-fingerprint"], {product["id"]: product["cosine"] for product in products}

    def _queries(self) -> Iterator[str]:
        """One after another, until close."""
        for query in itertools.cycle(QUERIES):
            if self._over.is_set():
                return
            yield query

    def _record(self, name: str, query: str, search: Callable[[str], Answer]) -> None:
        try:
            answer = search(query)
        except (QuerylifeError, OSError) as error:
            self.errors[f"{name}: {error}"[:200]] += 1
            return
        self.check(name, query, answer)

    def check(self, name: str, query: str, answer: Answer) -> None:
        """Each cosine is what the answer's model makes of the query and of one version of the product."""
        fingerprint, cosines = answer
        if fingerprint not in self._models:
            self.errors[f"{name}: found the unknown model {fingerprint}"] += 1
            return
        wanted = self._models[fingerprint].cosines[query]
        mixed = [i for i, cosine in cosines.items() if np.abs(wanted[i] - cosine).min() > TOLERANCE]
        if mixed or len(cosines) != K or sorted(cosines.values(), reverse=True) != list(cosines.values()):
            self.errors[f"{name}: {query}: found an answer of no one model: {cosines}"] += 1
        self.answers[fingerprint] += 1
        self.last[name] = fingerprint


def _answer(results: SearchResults) -> Answer:
    return results.fingerprint, {product.id: product.cosine for product in results}
