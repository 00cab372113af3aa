"""vLLM is told what suits the processor: the number format by its instructions, compilation and memory on a GPU."""

import pytest

from genfilt_server.config import ServerConfig
from genfilt_server.generation.dtype import fastest_dtype
from genfilt_server.generation.vllm_options import engine_options, environment, trace_environment
from querylife.errors import ConfigError

AVX2 = {"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False, "cpu_name": "bf16"}
AVX512 = AVX2 | {"avx512_f": True, "avx512_vnni": True}


def option(options: list[str], name: str) -> str:
    """The last value of an option, which is the one that counts."""
    return options[len(options) - options[::-1].index(name)]


def options_of(config: ServerConfig, *, is_cpu: bool, capabilities: dict[str, object]) -> list[str]:
    return engine_options(config, "folder", "generator", is_cpu=is_cpu, capabilities=capabilities)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        (AVX2, "float32"),
        (AVX512, "float32"),
        (AVX512 | {"avx512_bf16": True}, "bfloat16"),
        (AVX512 | {"amx_bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": True}, "bfloat16"),
        ({"neon": True, "bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it(capabilities: dict[str, object], dtype: str) -> None:
    assert fastest_dtype(capabilities) == dtype
    assert option(options_of(ServerConfig(), is_cpu=True, capabilities=capabilities), "--dtype") == dtype


def test_an_option_overrides_the_processors_dtype() -> None:
    config = ServerConfig(dtype="bfloat16")
    assert option(options_of(config, is_cpu=True, capabilities=AVX2), "--dtype") == "bfloat16"


def test_what_the_user_passes_on_wins() -> None:
    config = ServerConfig(engine_options=("--dtype", "float16", "--max-num-seqs", "8"))
    options = options_of(config, is_cpu=True, capabilities=AVX2)
    assert (option(options, "--dtype"), option(options, "--max-num-seqs")) == ("float16", "8")


def test_a_gpu_compiles_and_leaves_memory_to_triton() -> None:
    options = options_of(ServerConfig(), is_cpu=False, capabilities=AVX2)
    assert "--enforce-eager" not in options
    assert int(option(options, "--max-num-seqs")) > 32
    assert float(option(options, "--gpu-memory-utilization")) <= 0.8
    assert option(options, "--dtype") == "auto"  # vLLM's choice for the GPU, whatever its CPU has
    assert "TORCHDYNAMO_DISABLE" not in environment(is_cpu=False)


def test_a_cpu_neither_compiles_nor_asks_for_gpu_memory() -> None:
    options = options_of(ServerConfig(), is_cpu=True, capabilities=AVX2)
    assert "--enforce-eager" in options
    assert "--gpu-memory-utilization" not in options
    assert environment(is_cpu=True)["TORCHDYNAMO_DISABLE"] == "1"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"dtype": "int8"}, "--dtype"),
        ({"gpu_memory_share": 0.0}, "--gpu-memory-share"),
        ({"max_sequences": 0}, "--max"),
    ],
)
def test_values_that_cannot_be_are_refused(changes: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServerConfig(**changes)  # type: ignore[arg-type]


def test_traces_are_off_unless_there_is_an_endpoint() -> None:
    assert "--otlp-traces-endpoint" not in options_of(ServerConfig(), is_cpu=True, capabilities={})
    assert trace_environment(ServerConfig()) == {}
    url = "http://collector:4318/v1/traces"
    config = ServerConfig(trace_endpoint=url)
    assert option(options_of(config, is_cpu=True, capabilities={}), "--otlp-traces-endpoint") == url
    assert trace_environment(config)["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    with pytest.raises(ConfigError, match="--trace-endpoint: found"):
        ServerConfig(trace_endpoint="collector:4317")
