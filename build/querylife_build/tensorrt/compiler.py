"""ONNX to a TensorRT plan, for TensorRT 10, TensorRT 11 and TensorRT for RTX.

Precision always comes from the graph: networks are strongly typed, which 10 offers, and 11 and RTX insist on. So
none of the builder flags that 11 took away (FP16, BF16, INT8, precision constraints) is ever set, and TensorRTVersion
holds all that differs between the versions.
"""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from querylife.errors import ArtifactError
from querylife_build.tensorrt.profiles import Profile
from querylife_build.tensorrt.settings import Settings

if (
    TYPE_CHECKING
):  # `make check` has the types of TensorRT 10 (requirements/typing.lock), whether it is installed or not
    import tensorrt

ATTENTION_SINCE = (10, 14)  # the first TensorRT whose parser knows ONNX's Attention; Triton's images have it from 25.11


class TensorRTVersion:
    """What differs between the TensorRT modules. Raises ArtifactError for a major version that nobody tried."""

    def __init__(self, tensorrt: ModuleType) -> None:
        self.tensorrt: Any = tensorrt
        self.version: str = tensorrt.__version__
        self.is_rtx = tensorrt.__name__ == "tensorrt_rtx"
        major = int(self.version.partition(".")[0])
        if not self.is_rtx and major not in (10, 11):
            raise ArtifactError(f"TensorRT: found version {self.version}, want 10 or 11")

    @property
    def knows_attention(self) -> bool:
        """Whether the parser takes ONNX's Attention operator. Older ones need it spelled out in MatMul and Softmax."""
        numbers = tuple(int(part) for part in self.version.split(".")[:2])
        return self.is_rtx or numbers >= ATTENTION_SINCE

    @property
    def network_flags(self) -> int:
        """10 is weakly typed unless asked; 11 and RTX keep the flag, and know no other way."""
        flags = self.tensorrt.NetworkDefinitionCreationFlag
        return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0

    def set_target(self, config: Any, compute_capability: str | None) -> None:
        """RTX compiles for a named chip, such as "SM89", with or without one at hand; the others for the GPU here."""
        if self.is_rtx and compute_capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(self.tensorrt.ComputeCapability, compute_capability), 0)

    def apply(self, config: "tensorrt.IBuilderConfig", settings: Settings) -> None:
        """Set what the settings ask for. Raises ArtifactError for what this TensorRT has not."""
        trt = self.tensorrt
        config.builder_optimization_level = settings.optimization_level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if settings.refit:
            config.set_flag(trt.BuilderFlag.REFIT)
        if self.is_rtx and (settings.version_compatible or settings.hardware_compatible):
            raise ArtifactError("TensorRT for RTX: found a wish for compatible plans, want none: its plans are its own")
        if settings.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if settings.hardware_compatible:
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        if settings.timing_cache is not None:
            known = settings.timing_cache.read_bytes() if settings.timing_cache.exists() else b""
            config.set_timing_cache(config.create_timing_cache(known), False)


def compile_plan(
    version: TensorRTVersion,
    path: Path,
    profiles: tuple[Profile, ...],
    settings: Settings,
    compute_capability: str | None = None,
) -> bytes:
    """Compile one ONNX file. compute_capability: for RTX only, which chip to compile for.

    Returns the serialized plan. Raises ArtifactError with what TensorRT says when it rejects graph or profile.
    """
    trt = version.tensorrt
    messages: list[str] = []
    logger = collecting_logger(trt, messages)
    builder: tensorrt.Builder = trt.Builder(logger)
    network = builder.create_network(version.network_flags)
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, logger)
    if not parser.parse(compiler_graph(version, path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
        raise ArtifactError(f"{path}: TensorRT {version.version} cannot read it: {said}")
    config = builder.create_builder_config()
    version.apply(config, settings)
    version.set_target(config, compute_capability)
    for number, profile in enumerate(profiles):
        _add_profile(trt, builder, network, config, profile, f"{path}: profile {number}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ArtifactError(f"{path}: TensorRT {version.version} cannot compile it: {'; '.join(messages[:3])}")
    if settings.timing_cache is not None:
        settings.timing_cache.parent.mkdir(parents=True, exist_ok=True)
        settings.timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def compiler_graph(version: TensorRTVersion, path: Path) -> bytes:
    """The ONNX file as the parser gets it: where no fused kernel fits, TensorRT may take attention apart.

    Without the mark, which is no attribute of ONNX's own, a chip without a kernel for these heads fails the build.
    Raises ArtifactError for an Attention operator that this TensorRT does not know.
    """
    model = onnx.load(str(path))
    attentions = [node for node in model.graph.node if node.op_type == "Attention"]
    if attentions and not version.knows_attention:
        want = f"{'.'.join(map(str, ATTENTION_SINCE))} or newer, or --attention spelled"
        raise ArtifactError(f"{path}: found TensorRT {version.version}, its Attention operators want {want}")
    for node in attentions:
        node.attribute.append(helper.make_attribute("TRT_decomposable", 1))
    return bytes(model.SerializeToString())


def _add_profile(
    trt: Any,
    builder: "tensorrt.Builder",
    network: "tensorrt.INetworkDefinition",
    config: "tensorrt.IBuilderConfig",
    profile: Profile,
    name: str,
) -> None:
    shapes = builder.create_optimization_profile()
    wanted = [network.get_input(index).name for index in range(network.num_inputs)]
    if sorted(wanted) != sorted(profile):
        raise ArtifactError(f"{name}: found shapes for {sorted(profile)}, the graph wants {sorted(wanted)}")
    for tensor, (least, tuned, largest) in profile.items():
        try:
            shapes.set_shape(tensor, *(trt.Dims(axes) for axes in (least, tuned, largest)))
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{name}: {tensor}: {least}, {tuned}, {largest}: {error}") from error
    if not shapes or config.add_optimization_profile(shapes) < 0:
        raise ArtifactError(f"{name}: TensorRT refuses {profile}")


def collecting_logger(trt: Any, messages: list[str]) -> Any:
    """A logger that keeps errors, for the exception's message, and says nothing else."""

    class Collected(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                messages.append(message)

    return Collected()
