"""The servers of one client: Triton and GenFilt, of which either may be missing."""

from typing import Any

from querylife.errors import ContractError, ServiceError
from querylife_client._requests import batches, genfilt
from querylife_client._rpc.async_transport import AsyncTransport
from querylife_client._rpc.transport import Transport
from querylife_client.config import ClientConfig
from querylife_client.errors import CredentialsError
from querylife_client.served_model import ServedModel
from querylife_client.statistics import Statistics


class Servers:
    """Their connections, for threads. Raises ValueError for an address that cannot be read."""

    def __init__(self, triton: str | None, generator: str | None, config: ClientConfig, statistics: Statistics) -> None:
        served = ServedModel(config.model_recheck_s)
        self._triton = Transport(triton, config, statistics, served) if triton else None
        self._genfilt = Transport(generator, config.for_genfilt(), statistics) if generator else None

    @property
    def triton(self) -> Transport:
        """Raises ContractError where the client has no Triton."""
        return required(self._triton, "found no Triton address, want Client(address)")

    @property
    def genfilt(self) -> Transport:
        """Raises ContractError where the client has no GenFilt."""
        return required(self._genfilt, "found no GenFilt address, want Client(genfilt=address)")

    def are_ready(self, timeout_s: float) -> bool:
        """Whether each of them answers a real request within timeout_s. Raises CredentialsError."""
        try:
            if self._triton is not None:
                self._triton.once(*batches.readiness_probe(), timeout_s)
            if self._genfilt is not None:
                self._genfilt.once(genfilt.METADATA, genfilt.METADATA.message(), timeout_s)
        except CredentialsError:
            raise
        except ServiceError:
            return False
        return True

    def close(self) -> None:
        for transport in filter(None, (self._triton, self._genfilt)):
            transport.close()


class AsyncServers:
    """Their connections, for one event loop. Raises ValueError for an address that cannot be read."""

    def __init__(self, triton: str | None, generator: str | None, config: ClientConfig, statistics: Statistics) -> None:
        served = ServedModel(config.model_recheck_s)
        self._triton = AsyncTransport(triton, config, statistics, served) if triton else None
        self._genfilt = AsyncTransport(generator, config.for_genfilt(), statistics) if generator else None

    @property
    def triton(self) -> AsyncTransport:
        """Raises ContractError where the client has no Triton."""
        return required(self._triton, "found no Triton address, want AsyncClient(address)")

    @property
    def genfilt(self) -> AsyncTransport:
        """Raises ContractError where the client has no GenFilt."""
        return required(self._genfilt, "found no GenFilt address, want AsyncClient(genfilt=address)")

    async def are_ready(self, timeout_s: float) -> bool:
        """Whether each of them answers a real request within timeout_s. Raises CredentialsError."""
        try:
            if self._triton is not None:
                await self._triton.once(*batches.readiness_probe(), timeout_s)
            if self._genfilt is not None:
                await self._genfilt.once(genfilt.METADATA, genfilt.METADATA.message(), timeout_s)
        except CredentialsError:
            raise
        except ServiceError:
            return False
        return True

    async def close(self) -> None:
        for transport in filter(None, (self._triton, self._genfilt)):
            await transport.close()


def required(transport: Any, complaint: str) -> Any:
    if transport is None:
        raise ContractError(complaint)
    return transport
