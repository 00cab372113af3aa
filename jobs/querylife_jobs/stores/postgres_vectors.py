"""pgvector's type `vector` as numpy arrays, in PostgreSQL's binary format: two 16-bit numbers (width, 0), float32s."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from querylife_client.vector_store import StoreError

_HEADER = struct.Struct(">HH")


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: NDArray[np.float32]) -> bytes:
        return _HEADER.pack(len(obj), 0) + np.asarray(obj, ">f4").tobytes()


class _VectorLoader(Loader):
    format = Format.BINARY

    def load(self, data: Any) -> NDArray[np.float32]:
        return np.frombuffer(data, ">f4", offset=_HEADER.size).astype(np.float32)


def register_vectors(connection: Any) -> None:
    """Let a connection send and receive vectors. Raises StoreError where the extension is missing."""
    info = TypeInfo.fetch(connection, "vector")
    if info is None:
        raise StoreError("PostgreSQL: found no extension vector, want pgvector")
    info.register(connection)
    dumper = type("VectorDumper", (_VectorDumper,), {"oid": info.oid})
    connection.adapters.register_dumper(np.ndarray, dumper)
    connection.adapters.register_loader(info.oid, _VectorLoader)
