"""Over real gRPC: each request is answered or refused with a status that says who must act; no work is left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from words_server import hosted

from genfilt_protocol import genfilt_pb2 as pb
from genfilt_protocol import genfilt_pb2_grpc
from genfilt_server.auth import Token
from genfilt_server.config import ServerConfig
from genfilt_server.golden_probe import SERVICE

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


PATIENCE_S = 300.0  # on a busy machine


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has to come. Raises TimeoutError when it does not."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def titles(*texts: str) -> pb.DescribeRequest:
    return pb.DescribeRequest(products=[pb.Product(title=text.encode()) for text in texts])


def run(scenario: Any, **options: Any) -> None:
    """Call scenario(stub, hosted server, channel)."""

    async def main() -> None:
        async with hosted(**options) as server, grpc.aio.insecure_channel(server.address) as channel:
            await scenario(genfilt_pb2_grpc.GenFiltStub(channel), server, channel)

    asyncio.run(main())


async def status_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


def test_results_stand_in_the_order_of_the_request() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        response = await stub.Describe(titles("red dress", "\0", "blue shirt"))
        kinds = [result.WhichOneof("outcome") for result in response.results]
        assert kinds == ["description", "description", "description"]
        assert response.results[0].description.product_type == "dress"
        assert response.results[2].description.attributes["colour"] == "blue"
        assert response.provenance.generator == "words@1"

    run(scenario)


def test_one_broken_item_harms_no_other() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        products = [pb.Product(title=b"red dress"), pb.Product(title=b"\xff"), pb.Product()]
        response = await stub.Describe(pb.DescribeRequest(products=products))
        assert response.results[0].description.product_type == "dress"
        assert [result.error.fault for result in response.results[1:]] == ["text_not_utf8", "product_empty"]

    run(scenario)


@pytest.mark.parametrize("count", [0, 65])
def test_a_request_of_the_wrong_size_is_invalid(count: int) -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        assert await status_of(stub.Describe(titles(*["dress"] * count))) is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario)


def context(last: str = "01") -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{'5e' * 16}-{'a1' * 8}-{last}"),)


def test_the_engine_is_told_of_the_trace_of_each_call_and_of_no_other() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        async def items() -> AsyncIterator[pb.DescribeItem]:
            yield pb.DescribeItem(id=b"1", product=pb.Product(title=b"streamed dress"))

        await stub.Describe(titles("traced dress", "traced shirt"), metadata=context())
        await stub.Describe(titles("plain dress"))
        await stub.Describe(titles("unsampled dress"), metadata=context("00"))
        await stub.Describe(titles("garbled dress"), metadata=(("traceparent", "00-nonsense"),))
        assert [result async for result in stub.DescribeStream(items(), metadata=context())]
        given = {"traceparent": context()[0][1]}
        assert server.generator.traces == {
            "traced dress": given,
            "traced shirt": given,
            "plain dress": None,
            "unsampled dress": None,
            "garbled dress": None,
            "streamed dress": given,
        }

    run(scenario)


def test_an_empty_mask_is_invalid() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        assert await status_of(stub.Filter(pb.FilterRequest())) is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario)


def test_bytes_that_are_no_message_are_invalid() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        call = channel.unary_unary("/querylife.genfilt.v1.GenFilt/Describe")
        assert await status_of(call(b"\x0a\xff\xff\xff garbage")) is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario)


def test_a_full_server_refuses_with_a_hint() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        server.generator.gate.clear()
        first = stub.Describe(titles(*(f"dress {n}" for n in range(8))))
        await until(lambda: server.generator.running == 8)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Describe(titles("one more"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        hints = dict(caught.value.trailing_metadata())
        assert int(hints["grpc-retry-pushback-ms"]) > 0
        server.generator.gate.set()
        await first
        await stub.Describe(titles("one more"))

    run(scenario, config=ServerConfig(port=0, max_waiting=8))


def test_a_deadline_gives_the_generation_up() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        generator = server.generator
        generator.gate.clear()
        for timeout_s in (0.2, 1.0, 5.0, 25.0, 125.0):  # until a generation has begun within it
            assert await status_of(stub.Describe(titles("dress"), timeout=timeout_s)) is DEADLINE_EXCEEDED
            if generator.seen:
                break
        assert generator.seen
        await until(lambda: (generator.running, generator.given_up) == (0, len(generator.seen)))
        await until(lambda: server.admission.taken == 0)

    run(scenario)


def test_a_caller_who_leaves_gives_the_generation_up() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        server.generator.gate.clear()
        call = stub.Describe(titles("dress", "shirt"))
        await until(lambda: server.generator.running == 2)
        call.cancel()
        await until(lambda: (server.generator.running, server.admission.taken) == (0, 0))

    run(scenario)


def test_a_stream_is_slowed_down_and_never_refused() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        async def items() -> AsyncIterator[pb.DescribeItem]:
            for number in range(40):
                yield pb.DescribeItem(id=str(number), product=pb.Product(title=f"dress {number}".encode()))

        async def open_gate() -> None:
            try:
                await until(lambda: server.generator.running >= 4)
            finally:
                server.generator.gate.set()

        server.generator.gate.clear()
        opening = asyncio.create_task(open_gate())
        results = [result async for result in stub.DescribeStream(items())]
        await opening
        assert {result.id for result in results} == {str(number) for number in range(40)}
        assert server.generator.most == 4
        await until(lambda: server.admission.taken == 0)

    run(scenario, config=ServerConfig(port=0, max_waiting=4), delay_s=0.01)


def test_a_stream_that_is_cut_leaves_no_work_behind() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        async def items() -> AsyncIterator[pb.DescribeItem]:
            for number in range(10):
                yield pb.DescribeItem(id=str(number), product=pb.Product(title=f"dress {number}".encode()))
            await asyncio.sleep(600)

        server.generator.gate.clear()
        call = stub.DescribeStream(items())
        await until(lambda: server.generator.running == 10)
        call.cancel()
        await until(lambda: (server.generator.running, server.admission.taken) == (0, 0))

    run(scenario)


def test_judge_and_filter_agree() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        products = [pb.Product(title=text) for text in (b"red dress", b"blue shirt", b"red wallet")]
        mask = await stub.Filter(pb.FilterRequest(queries=[b"red dress", b"shirt"], products=products))
        pairs = [pb.Pair(query=query, product=product) for query in (b"red dress", b"shirt") for product in products]
        judged = await stub.Judge(pb.JudgeRequest(pairs=pairs))
        assert list(mask.verdicts) == [result.judgement.verdict for result in judged.results]
        expected = [result.judgement.probability for result in judged.results]
        assert list(mask.probabilities) == pytest.approx(expected, abs=1e-5)

    run(scenario)


def test_judge_and_filter_stream() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        pair = pb.Pair(query=b"red dress", product=pb.Product(title=b"red dress"))
        judged = [result async for result in stub.JudgeStream(iter([pb.JudgeItem(id="a", pair=pair)]))]
        assert judged[0].id == "a"
        assert judged[0].result.judgement.probability > 0
        whole = pb.FilterRequest(queries=[b"red dress"], products=[pb.Product(title=b"red dress")])
        items = [pb.FilterItem(id="good", request=whole), pb.FilterItem(id="bad", request=pb.FilterRequest())]
        masks = {result.id: result async for result in stub.FilterStream(iter(items))}
        assert len(masks["good"].response.verdicts) == 1
        assert masks["bad"].error.fault == "invalid_request"

    run(scenario)


def test_health_is_what_the_golden_probe_saw() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        assert await health_of(channel) == NOT_SERVING
        assert await server.golden_probe.probe()
        assert await health_of(channel) == SERVING

    run(scenario)


async def health_of(channel: Any) -> Any:
    request = health_pb2.HealthCheckRequest(service=SERVICE)
    return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


def test_a_busy_server_is_healthy_where_others_are_answered() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        for limit_s in (0.5, 2.5, 12.0, 60.0):  # until the other one is answered within it
            others = server.generator.gate = asyncio.Event()
            described = stub.Describe(titles(f"blue shirt {limit_s}"))
            await until(lambda: server.generator.running == 1)
            server.generator.gate = asyncio.Event()  # the probe's, which stays closed
            probing = asyncio.create_task(server.golden_probe.probe(limit_s))
            await asyncio.sleep(0)  # it begins
            others.set()
            is_healthy = await probing
            await described
            if is_healthy:
                break
        assert is_healthy
        assert await health_of(channel) == SERVING

    run(scenario)


def test_a_busy_server_that_answers_nobody_is_not_well() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        assert await server.golden_probe.probe()
        server.generator.gate = asyncio.Event()
        described = stub.Describe(titles("blue shirt"))
        await until(lambda: server.generator.running == 1)
        assert not await server.golden_probe.probe(0.5)
        assert await health_of(channel) == NOT_SERVING
        described.cancel()

    run(scenario)


def test_without_the_token_only_health_is_answered() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        refused = grpc.StatusCode.UNAUTHENTICATED
        assert await status_of(stub.Describe(titles("dress"))) is refused
        wrong = (("authorization", "Bearer guess"),)
        assert await status_of(stub.Metadata(pb.MetadataRequest(), metadata=wrong)) is refused
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.DescribeStream(iter([pb.DescribeItem()])):
                pass
        assert caught.value.code() is refused
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        right = (("authorization", "Bearer secret"),)
        assert len((await stub.Describe(titles("dress"), metadata=right)).results) == 1

    run(scenario, token=Token("secret"))


def test_the_service_can_be_explored() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked)
        names = [service.name async for answer in call for service in answer.list_services_response.service]
        assert SERVICE in names

    run(scenario)


def test_a_server_that_stops_finishes_what_it_has_begun() -> None:
    async def scenario(stub: Any, server: Any, channel: Any) -> None:
        server.generator.gate.clear()
        begun = stub.Describe(titles("dress"))
        await until(lambda: server.generator.running == 1)
        stopping = asyncio.create_task(server.server.stop(PATIENCE_S))
        await until(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)  # it has heard of the end
        assert await status_of(stub.Describe(titles("late"))) is grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        server.generator.gate.set()
        assert len((await begun).results) == 1
        await stopping

    run(scenario)
