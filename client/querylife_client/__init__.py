"""Blocking and asyncio clients for querylife's servers: Triton (vectors, scores) and GenFilt (descriptions)."""

from querylife_client._rpc.calls import traceparent
from querylife_client.async_client import AsyncClient
from querylife_client.client import Client
from querylife_client.config import ClientConfig, Tls
from querylife_client.descriptions import Description, FilteredPairs, FilteredTile, Judgement, Verdict
from querylife_client.metadata import GeneratorMetadata, ServerMetadata
from querylife_client.products import EmbeddedProducts, Embeddings, Product
from querylife_client.retry import Counts, RetryPolicy
from querylife_client.search import FoundProduct, SearchResults
from querylife_client.vector_store import StoreError, StoreIdentity, VectorStore

__all__ = [
    "AsyncClient",
    "Client",
    "ClientConfig",
    "Counts",
    "Description",
    "EmbeddedProducts",
    "Embeddings",
    "FilteredPairs",
    "FilteredTile",
    "FoundProduct",
    "GeneratorMetadata",
    "Judgement",
    "Product",
    "RetryPolicy",
    "SearchResults",
    "ServerMetadata",
    "StoreError",
    "StoreIdentity",
    "Tls",
    "VectorStore",
    "Verdict",
    "traceparent",
]
