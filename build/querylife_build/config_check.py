"""Semantic checks of config.pbtxt, beyond Triton's parser: consistency with the graphs and the plans."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from querylife.artifacts.repository_lock import ONNX_NAME, EngineLock, PlanLock
from querylife.contract import MAX_BATCH, MODELS, TOWERS, Model
from querylife.errors import ArtifactError
from querylife_build.export.graph_checks import axes_of
from querylife_build.tensorrt.profiles import Profile, check_profile

Config = Any  # model_config_pb2.ModelConfig, which ships no types

PLATFORMS = ("ensemble", "tensorrt_plan")
BACKENDS = ("python", "tensorrt", "dali")
_TRITON_TYPES = {
    onnx.TensorProto.BOOL: "TYPE_BOOL",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
}


def check_configs(repository: Path, lock: EngineLock) -> None:
    """Check every config of a repository, in both profiles. Raises ArtifactError with all that is wrong, one a line."""
    problems = [
        problem for path in sorted(repository.rglob("*.pbtxt")) for problem in _problems(path, repository, lock)
    ]
    if problems:
        raise ArtifactError("\n".join(["found configs that cannot serve:", *problems]))


def read_config(path: Path) -> Config:
    """Parse one file. Raises ArtifactError where Triton's own parser would refuse it."""
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error


def _problems(path: Path, repository: Path, lock: EngineLock) -> Iterator[str]:
    config = read_config(path)
    name = path.relative_to(repository).parts[0]
    model = next((model for model in MODELS if model.name == name), None)
    config_name = path.relative_to(repository)
    if model is None:
        yield f"{config_name}: found a model {name}, the contract has none of that name"
        return
    checks = [_kind(config), _batches(config), _tensors(config, model)]
    if model in TOWERS:
        plan = lock.tensorrt.plans.get(name) if lock.tensorrt is not None else None
        onnx_file = repository / name / "1" / ONNX_NAME
        checks += [_graph(config, onnx_file) if plan is None else _plan(config, plan)]
    if config.platform == "ensemble":
        checks.append(_ensemble(config, model, repository))
    for problem in (problem for check in checks for problem in check):
        yield f"{config_name}: {problem}"


def _kind(config: Config) -> Iterator[str]:
    if config.platform and config.platform not in PLATFORMS:
        yield f'platform: found "{config.platform}", want one of {", ".join(PLATFORMS)}'
    if config.backend and config.backend not in BACKENDS:
        yield f'backend: found "{config.backend}", want one of {", ".join(BACKENDS)}'
    if not config.platform and not config.backend:
        yield "found neither platform nor backend, want one"
    for group in config.instance_group:
        if group.count < 1:
            yield f"instance_group: found a count of {group.count}, want 1 or more"


def _batches(config: Config) -> Iterator[str]:
    largest = config.max_batch_size
    if not 1 <= largest <= MAX_BATCH:
        yield f"max_batch_size: found {largest}, want 1 to {MAX_BATCH}"
    for preferred in config.dynamic_batching.preferred_batch_size:
        if not 1 <= preferred <= largest:
            yield f"preferred_batch_size: found {preferred}, want 1 to max_batch_size {largest}"


def _tensors(config: Config, model: Model) -> Iterator[str]:
    inputs = (*model.inputs, *model.after)
    for tensor in config.input:
        want_optional = tensor.name in {after.name for after in model.after}
        if tensor.optional != want_optional:
            yield f"input {tensor.name}: found optional {tensor.optional}, the contract wants {want_optional}"
    for side, declared, tensors in (("input", config.input, inputs), ("output", config.output, model.outputs)):
        want = {tensor.name: (tensor.dtype.config, tensor.shape) for tensor in tensors}
        if sorted(tensor.name for tensor in declared) != sorted(want):
            yield f"{side}: found {[tensor.name for tensor in declared]}, the contract wants {list(want)}"
            continue
        for tensor in declared:
            dtype, shape = want[tensor.name]
            dtype_name = model_config_pb2.DataType.Name(tensor.data_type)
            if dtype_name != dtype:
                yield f"{side} {tensor.name}: found {dtype_name}, the contract wants {dtype}"
            if any(axis < -1 or axis == 0 for axis in tensor.dims):
                yield f"{side} {tensor.name}: found dims {list(tensor.dims)}, want -1 or more than 0"
            if not _fits(tensor.dims, [-1 if axis is None else axis for axis in shape]):
                yield f"{side} {tensor.name}: found dims {list(tensor.dims)}, the contract wants {list(shape)}"


def _graph(config: Config, path: Path) -> Iterator[str]:
    """Names, types and dims against the ONNX file, which is also what the plan is compiled from."""
    if not path.exists():
        yield f"found no {path}, want the tower's graph"
        return
    graph = onnx.load(str(path), load_external_data=False).graph
    values = {value.name: value for value in [*graph.input, *graph.output]}
    for tensor in [*config.input, *config.output]:
        value = values.get(tensor.name)
        if value is None:
            yield f"{tensor.name}: found no such tensor in {path.name}, which has {sorted(values)}"
            continue
        dtype_name = model_config_pb2.DataType.Name(tensor.data_type)
        want = _TRITON_TYPES.get(value.type.tensor_type.elem_type)
        if dtype_name != want:
            yield f"{tensor.name}: found {dtype_name}, {path.name} has {want}"
        if not _fits(tensor.dims, axes_of(value)[1:]):
            yield f"{tensor.name}: found dims {list(tensor.dims)}, {path.name} has {axes_of(value)[1:]} per item"


def _plan(config: Config, plan: PlanLock) -> Iterator[str]:
    """Shapes, profiles and CUDA graphs against those that the plan was built with."""
    largest = plan.profiles[-1]
    for profile in plan.profiles:
        try:
            check_profile(profile, config.max_batch_size)
        except ArtifactError as error:
            yield str(error)
    for tensor in config.input:
        if tensor.name not in largest:
            yield f"{tensor.name}: found no such input in the plan, which has {sorted(largest)}"
        elif not _fits(tensor.dims, largest[tensor.name][-1][1:]):
            yield f"{tensor.name}: found dims {list(tensor.dims)}, the plan has {largest[tensor.name][-1][1:]} per item"
    want = [str(number) for number in range(len(plan.profiles))]
    for group in config.instance_group:
        if list(group.profile) != want:
            yield f"instance_group: found profiles {list(group.profile)}, the plan has {want}"
    for spec in config.optimization.cuda.graph_spec:
        yield from _cuda_graph(spec, config.max_batch_size, largest)


def _cuda_graph(spec: Any, max_batch_size: int, profile: Profile) -> Iterator[str]:
    """One graph_spec: its batches in order, its shapes within the profile's."""
    name = f"graph_spec of {spec.batch_size} rows"
    if not 1 <= spec.graph_lower_bound.batch_size <= spec.batch_size <= max_batch_size:
        batches = f"{spec.graph_lower_bound.batch_size} to {spec.batch_size}"
        yield f"{name}: found batches of {batches}, want some of 1 to {max_batch_size}"
    for side in (spec.input, spec.graph_lower_bound.input):
        if sorted(side) != sorted(profile):
            yield f"{name}: found shapes for {sorted(side)}, the plan wants {sorted(profile)}"
            continue
        for tensor, shape in side.items():
            least, _, largest = (bound[1:] for bound in profile[tensor])
            fits = len(shape.dim) == len(least) and all(
                low <= axis <= high for low, axis, high in zip(least, shape.dim, largest, strict=True)
            )
            if not fits:
                yield f"{name}: found {tensor} of {list(shape.dim)}, the plan takes {list(least)} to {list(largest)}"


def _ensemble(config: Config, model: Model, repository: Path) -> Iterator[str]:
    """Walk the steps: every input exists by then with the right type and dims, every output is produced once."""
    known = {tensor.name: tensor for tensor in config.input}
    for step in config.ensemble_scheduling.step:
        path = repository / step.model_name / "config.pbtxt"
        if not path.exists():
            yield f"step {step.model_name}: found no such model in the repository"
            continue
        member = read_config(path)
        if member.max_batch_size < config.max_batch_size:
            largest = f"max_batch_size {member.max_batch_size}"
            yield f"step {step.model_name}: found {largest}, the ensemble wants {config.max_batch_size}"
        yield from _step_inputs(step, member, known)
        yield from _step_outputs(step, member, known)
    for tensor in model.outputs:
        if tensor.name not in known:
            yield f"found no step that produces {tensor.name}"


def _step_inputs(step: Any, member: Config, known: Mapping[str, Any]) -> Iterator[str]:
    """known: the ensemble's tensors that exist before the step."""
    inputs = {tensor.name: tensor for tensor in member.input}
    missing = {name for name, tensor in inputs.items() if not tensor.optional} - set(step.input_map)
    if missing:
        yield f"step {step.model_name}: found nothing for its inputs {sorted(missing)}"
    for inner, outer in step.input_map.items():
        yield from _joined(f"step {step.model_name}", inner, inputs, outer, known)


def _step_outputs(step: Any, member: Config, known: dict[str, Any]) -> Iterator[str]:
    """Adds the step's outputs to known."""
    outputs = {tensor.name: tensor for tensor in member.output}
    for inner, outer in step.output_map.items():
        if inner not in outputs:
            yield f"step {step.model_name}: found no output {inner}, it has {sorted(outputs)}"
        elif outer in known:
            yield f"step {step.model_name}: found {outer} produced already"
        else:
            known[outer] = outputs[inner]


def _joined(step: str, inner: str, inputs: Mapping[str, Any], outer: str, known: Mapping[str, Any]) -> Iterator[str]:
    if inner not in inputs:
        yield f"{step}: found no input {inner}, it has {sorted(inputs)}"
    elif outer not in known:
        yield f"{step}: found no {outer} for its input {inner} by then"
    elif inputs[inner].data_type != known[outer].data_type or not _fits(inputs[inner].dims, known[outer].dims):
        yield f"{step}: found {inner} fed by {outer}, which has another type or other dims"


def _fits(dims: Any, want: Any) -> bool:
    """Whether dims agree; -1 on either side agrees with anything."""
    return len(dims) == len(want) and all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, want, strict=True))
