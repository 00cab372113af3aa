"""Vector stores: one adapter per product, and what they have in common."""

from querylife_jobs.stores.store import Store, open_store

__all__ = ["Store", "open_store"]
