"""Where the server's time went: Triton's statistics of every model, after a run less before it."""

from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtest.connection import open_channel

PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class StageTime:
    """One model (ensembles contain their steps). Times are means of one request, in ms; batch: mean items together."""

    model: str
    requests: int
    failures: int
    batch: float
    queue_ms: float
    compute_input_ms: float
    compute_infer_ms: float
    compute_output_ms: float


def read_statistics(address: str) -> Any:
    channel, metadata = open_channel(address)
    with channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelStatisticsRequest()
        return stub.ModelStatistics(request, timeout=60, metadata=metadata, wait_for_ready=True)


def stage_times(before: Any, after: Any) -> list[StageTime]:
    """Models that worked in between, in the order of the time they took."""
    earlier = {model.name: model for model in before.model_stats}
    stages = [_stage(earlier.get(model.name), model) for model in after.model_stats]
    worked = [stage for stage in stages if stage.requests > 0]
    return sorted(worked, key=lambda stage: -stage.requests * (stage.queue_ms + stage.compute_infer_ms))


def _stage(before: Any, after: Any) -> StageTime:
    def gained(read: Any) -> int:
        now = read(after)
        then = read(before) if before is not None else 0
        return int(now - then if now >= then else now)  # a server that was restarted began again at 0

    requests = gained(lambda model: model.inference_stats.success.count)
    executions = gained(lambda model: model.execution_count)
    means = {
        f"{part}_ms": gained(lambda model, part=part: getattr(model.inference_stats, part).ns) / max(1, requests) / 1e6
        for part in PARTS
    }
    return StageTime(
        model=after.name,
        requests=requests,
        failures=gained(lambda model: model.inference_stats.fail.count),
        batch=gained(lambda model: model.inference_count) / max(1, executions),
        **means,
    )
