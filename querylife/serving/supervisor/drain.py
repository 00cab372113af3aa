"""Draining: new requests are refused, running requests finish.

On SIGTERM Triton fails requests that are between two steps of an ensemble. So the ensembles are unloaded first: Triton
then takes no new request for them and keeps their steps until the last one is done.

Triton 2.51 does not let go of some requests whose caller left while they were being answered: such an ensemble
stays "unloading" for ever. A model that is no ensemble (embed_query of the CPU profile) stays so until its processes
have ended. So a server that has nothing to do counts as drained too.
"""

import logging
import secrets
import time
from collections.abc import Callable

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from querylife.contract import ENSEMBLES
from querylife.serving.supervisor.auth import Access

log = logging.getLogger(__name__)

LEAST_S = 5.0  # for a server that is told to unload a model, however short the drain; otherwise it has all of that

KEY_HEADER = "triton-grpc-protocol-control-key"


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
        """What nobody else may see of options."""
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

        is_idle: whether the server has had nothing to do for a while.
        """
        deadline = time.monotonic() + timeout_s
        with self._access.channel(self._address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                return self._unload(stub, [model.name for model in ENSEMBLES], deadline, is_idle)
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
            unload = pb.RepositoryModelUnloadRequest(model_name=name)
            stub.RepositoryModelUnload(unload, metadata=credentials, timeout=max(LEAST_S, deadline - time.monotonic()))
        while (left_s := deadline - time.monotonic()) > 0:
            index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), metadata=credentials, timeout=left_s)
            if all(model.reason == "unloaded" for model in index.models if model.name in names):
                return True
            if is_idle():
                held = [model.name for model in index.models if model.name in names and model.reason != "unloaded"]
                log.info("idle, with %s still loaded", ", ".join(held))
                return True
            time.sleep(0.05)
        return False
