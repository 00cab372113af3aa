"""More calls than the server can work on wait or run out of time; they do not end it."""

import asyncio
from collections import Counter

from querylife_client import AsyncClient, ClientConfig, Product, RetryPolicy
from querylife_client.errors import DeadlineExceededError

CALLS = (
    1000  # at once; a queue of 512 in the first step of a nested ensemble ended Triton 2.51 with a segmentation fault
)


def test_a_thousand_scores_at_once_are_answered_or_run_out_of_time(triton):
    outcomes = asyncio.run(flood(triton.address))
    assert set(outcomes) <= {"answered", DeadlineExceededError.__name__}
    assert outcomes["answered"] >= 64


async def flood(address: str) -> Counter[str]:
    outcomes: Counter[str] = Counter()

    async def call(client: AsyncClient, number: int) -> None:
        try:
            await client.score(f"dress {number}", [Product(title=f"dress {number}")])
        except Exception as error:  # whatever it is, the test looks at its kind
            outcomes[type(error).__name__] += 1
        else:
            outcomes["answered"] += 1

    config = ClientConfig(retry=RetryPolicy(attempts=1))
    async with AsyncClient(address, timeout_s=30, config=config) as client:
        await asyncio.gather(*(call(client, number) for number in range(CALLS)))
    async with AsyncClient(address, timeout_s=600) as client:  # and then it answers as before
        await client.score("dress", [Product(title="dress")])
    return outcomes
