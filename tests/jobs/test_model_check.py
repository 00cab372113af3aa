"""One question to the server vouches for every batch that was done before it was sent, and for none after."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from querylife.errors import FingerprintMismatchError, ServiceError
from querylife_client import AsyncClient
from querylife_client.testing import FakeTriton
from querylife_jobs.model_check import ModelCheck


class SlowClient(AsyncClient):
    """Holds back its questions until released."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.asked = 0
        self.released = asyncio.Event()

    async def model_identity(self, **options: Any) -> Any:
        self.asked += 1
        answer = await super().model_identity(**options)
        await self.released.wait()
        return answer


def test_batches_that_wait_share_one_question() -> None:
    async def check() -> None:
        with FakeTriton() as triton:
            async with SlowClient(triton.address) as client:
                checks = ModelCheck(client, triton.model)
                waiting = [asyncio.create_task(checks.unchanged()) for _ in range(20)]
                while client.asked == 0:
                    await asyncio.sleep(0.01)
                waiting += [asyncio.create_task(checks.unchanged()) for _ in range(20)]
                client.released.set()
                await asyncio.gather(*waiting)
                assert client.asked == 2  # those who came after the first was sent need another

    asyncio.run(check())


def test_a_change_after_the_question_was_sent_is_seen_by_those_who_came_after() -> None:
    async def check() -> None:
        with FakeTriton() as triton:
            async with SlowClient(triton.address) as client:
                checks = ModelCheck(client, triton.model)
                before = asyncio.create_task(checks.unchanged())
                while client.asked == 0:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)  # the server has answered
                triton.model = replace(triton.model, precision="int8")
                after = asyncio.create_task(checks.unchanged())
                await asyncio.sleep(0)
                client.released.set()
                await before
                with pytest.raises(FingerprintMismatchError, match="precision"):
                    await after

    asyncio.run(check())


def test_a_server_that_does_not_answer_fails_those_who_wait_and_no_one_after() -> None:
    async def check() -> None:
        with FakeTriton() as triton:
            async with AsyncClient(triton.address, timeout_s=0.5) as client:
                checks = ModelCheck(client, triton.model)
                triton.stop()
                failures = await asyncio.gather(*(checks.unchanged() for _ in range(3)), return_exceptions=True)
                assert all(isinstance(failure, ServiceError) for failure in failures), failures
                triton.start()
                await asyncio.wait_for(_until_unchanged(checks), 30)

    asyncio.run(check())


async def _until_unchanged(checks: ModelCheck) -> None:
    while True:
        try:
            return await checks.unchanged()
        except ServiceError:
            await asyncio.sleep(0.1)
