"""What vLLM is told: environment variables before it is imported, and command-line options for its engine.

Imports neither vLLM nor torch, so that the choices can be tested where vLLM is not installed.
"""

from collections.abc import Mapping
from typing import Any

from genfilt_server.config import ServerConfig
from genfilt_server.generation.dtype import fastest_dtype

CPU_BLOCK_TOKENS = 32  # vLLM's default of 128 on CPU never caches a prefix as short as ours
CPU_CACHE_GIB = 1
CPU_SEQUENCES, GPU_SEQUENCES = 32, 256  # descriptions that the engine generates at once
SERVICE = "querylife-genfilt"  # in traces
NO_DOMAIN = "none.invalid"  # the only host that the engine may fetch pictures from does not exist


def environment(*, is_cpu: bool) -> dict[str, str]:
    """Environment variables that vLLM and torch read when they are imported."""
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for the line that says ready
    }
    if is_cpu:
        # Without TORCHDYNAMO_DISABLE the first request for log-probabilities compiles C++ for half a minute, and
        # kills the engine where there is no compiler. On a GPU torch.compile and CUDA graphs stay on.
        variables |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": str(CPU_CACHE_GIB)}
    return variables


def trace_environment(config: ServerConfig) -> dict[str, str]:
    """OpenTelemetry's environment variables: OTLP over HTTP, and spans for calls that bring a sampled trace only.

    Without an endpoint, none.
    """
    if config.trace_endpoint is None:
        return {}
    return {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }


def engine_options(
    config: ServerConfig, path: str, name: str, *, is_cpu: bool, capabilities: Mapping[str, Any]
) -> list[str]:
    """Options of `vllm serve` for this server; what the user passed on comes last and wins.

    path, name: the generator's folder or hub id, and its served name. capabilities: torch.cpu.get_capabilities().
    """
    sequences = config.max_sequences or (CPU_SEQUENCES if is_cpu else GPU_SEQUENCES)
    options = ["--model", path, "--served-model-name", name]
    options += ["--max-model-len", str(config.max_context_tokens), "--max-num-seqs", str(sequences)]
    options += ["--allowed-media-domains", NO_DOMAIN, "--limit-mm-per-prompt", '{"image": 1}']
    options += ["--disable-fastapi-docs", "--shutdown-timeout", str(int(config.drain_s))]
    if is_cpu:
        dtype = fastest_dtype(capabilities) if config.dtype == "auto" else config.dtype
        options += ["--enforce-eager", "--block-size", str(CPU_BLOCK_TOKENS)]
    else:
        dtype = config.dtype  # "auto" is vLLM's own choice for this GPU and checkpoint
        options += ["--gpu-memory-utilization", str(config.gpu_memory_share)]
    if config.trace_endpoint is not None:
        options += ["--otlp-traces-endpoint", config.trace_endpoint]
    return [*options, "--dtype", dtype, *config.engine_options]
