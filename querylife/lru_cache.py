"""A bounded cache that drops what was not used for longest."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """The values of the cache_size keys used last. Threads that share one need a lock around it."""

    def __init__(self, cache_size: int) -> None:
        """cache_size: values kept, at most."""
        self._cache_size = cache_size
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as used now; None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: K, value: V) -> None:
        """Keep a value, and drop the one that was not used for longest where there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._cache_size:
            self._values.popitem(last=False)

    def clear(self) -> None:
        self._values.clear()
