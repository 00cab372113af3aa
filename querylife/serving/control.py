"""Draining: refuse new work while what has begun goes on.

On SIGTERM Triton fails requests that are between two steps of an ensemble. So the ensembles are unloaded first, the
outer before the inner: Triton then takes no new request for them and keeps their steps until the last one is done.

Triton before 26.02 never lets go of an ensemble's request whose step was refused by a full queue, although its caller
has the answer (core#466): such an ensemble stays "unloading" for ever. So a server that has nothing to do counts as
drained too.
"""

import logging
import secrets
import time
from collections.abc import Callable

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from querylife.contract import EMBED_PRODUCT, EMBED_QUERY, SCORE_PRODUCTS
from querylife.serving.access import Access

log = logging.getLogger(__name__)

KEY_HEADER = "triton-grpc-protocol-control-key"
STAGES = ((SCORE_PRODUCTS,), (EMBED_QUERY, EMBED_PRODUCT))


class RepositoryControl:
    """The right to load and unload models, which nobody else on the port has.

    Nobody at all has Triton's shared memory (it would let a caller name the backends' own regions), trace and log
    settings (they name files); they are behind the same key.
    """

    def __init__(self, address: str, access: Access) -> None:
        self._address = address
        self._access = access
        self._key = secrets.token_hex(16)

    @property
    def secrets(self) -> list[str]:
        return [self._key]

    def options(self) -> list[str]:
        """What tritonserver needs to give the right to this object alone."""
        return [
            "--model-control-mode=explicit",
            "--load-model=*",
            f"--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:control-key={self._key}",
        ]

    def drain(self, timeout_s: float, is_idle: Callable[[], bool]) -> bool:
        """Unload the ensembles and wait for their last requests. Returns whether none is left.

        is_idle: whether the server has had nothing to do since it was last asked, a second ago or more.
        """
        started, each_s = time.monotonic(), timeout_s / len(STAGES)
        with self._access.channel(self._address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                return all(
                    [
                        self._unload(stub, [model.name for model in stage], started + number * each_s, is_idle)
                        for number, stage in enumerate(STAGES, 1)
                    ]
                )
            except grpc.RpcError as error:
                log.warning("cannot drain: %s", error.details())
                return False

    def _unload(
        self,
        stub: service_pb2_grpc.GRPCInferenceServiceStub,
        names: list[str],
        deadline: float,
        is_idle: Callable[[], bool],
    ) -> bool:
        credentials = [(KEY_HEADER, self._key)]
        for name in names:
            stub.RepositoryModelUnload(
                pb.RepositoryModelUnloadRequest(model_name=name), metadata=credentials, timeout=5
            )
        while time.monotonic() < deadline:
            index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), metadata=credentials, timeout=5)
            if all(model.reason == "unloaded" for model in index.models if model.name in names):
                return True
            if is_idle():
                log.info("%s: Triton holds on to a request that a full queue refused; nothing works", ", ".join(names))
                return True
            time.sleep(0.05)
        return False
