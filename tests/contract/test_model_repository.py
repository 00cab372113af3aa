"""Every config.pbtxt follows querylife/contract.py, in both profiles, and every ensemble can run."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from querylife import contract

REPOSITORY = Path(__file__).parents[2] / "model_repository"
CONFIGS = sorted(path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*.pbtxt"))
MODELS = {model.name: model for model in contract.MODELS}


def read(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse((REPOSITORY / path).read_text(), model_config_pb2.ModelConfig())


def test_every_model_has_a_folder_and_every_folder_a_model():
    folders = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    assert folders == set(MODELS)
    assert {path.parts[0] for path in CONFIGS} == set(MODELS)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_tensors_are_the_contracts(path):
    config, model = read(path), MODELS[path.parts[0]]
    for declared, tensors in ((config.input, (*model.inputs, *model.after)), (config.output, model.outputs)):
        in_config = [(t.name, model_config_pb2.DataType.Name(t.data_type), tuple(t.dims)) for t in declared]
        want = [(t.name, t.dtype.config, tuple(-1 if axis is None else axis for axis in t.shape)) for t in tensors]
        assert in_config == want
    assert config.max_batch_size == contract.MAX_BATCH


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_only_what_orders_steps_is_optional_because_triton_batches_only_requests_with_the_same_inputs(path):
    optional = [tensor.name for tensor in read(path).input if tensor.optional]
    assert optional == [tensor.name for tensor in MODELS[path.parts[0]].after]


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_queue_is_bounded_in_time_and_not_in_length_which_would_end_triton(path):
    config = read(path)
    if config.platform == "ensemble":
        return  # its steps queue, it does not
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size == 0
    assert policy.default_timeout_microseconds > 0
    assert policy.allow_timeout_override
    assert policy.timeout_action == policy.REJECT


@pytest.mark.parametrize("model", contract.TOWERS, ids=lambda model: model.name)
def test_a_tower_is_a_plan_on_gpu_and_onnx_runtime_on_cpu(model):
    assert read(Path(model.name) / "config.pbtxt").platform == "tensorrt_plan"
    assert read(Path(model.name) / "configs" / "cpu.pbtxt").backend == "python"


def test_a_query_takes_one_step_on_cpu_and_two_on_gpu():
    name = contract.EMBED_QUERY.name
    assert read(Path(name) / "config.pbtxt").platform == "ensemble"
    assert read(Path(name) / "configs" / "cpu.pbtxt").backend == "python"


@pytest.mark.parametrize("model", contract.ENSEMBLES, ids=lambda model: model.name)
def test_each_steps_inputs_exist_by_then(model):
    known = {tensor.name: tensor for tensor in model.inputs}
    for step in read(Path(model.name) / "config.pbtxt").ensemble_scheduling.step:
        member = MODELS[step.model_name]
        accepted = {tensor.name: tensor for tensor in (*member.inputs, *member.after)}
        assert {tensor.name for tensor in member.inputs} <= set(step.input_map) <= set(accepted)
        for inner, outer in step.input_map.items():
            assert outer in known, f"{step.model_name} wants {outer} before a step makes it"
            assert (known[outer].dtype, known[outer].shape) == (accepted[inner].dtype, accepted[inner].shape)
        for inner, outer in step.output_map.items():
            assert outer not in known, f"{step.model_name} makes {outer} a second time"
            known[outer] = member.output(inner)
    for tensor in model.outputs:
        assert (known[tensor.name].dtype, known[tensor.name].shape) == (tensor.dtype, tensor.shape)


@pytest.mark.parametrize("model", contract.ENSEMBLES, ids=lambda model: model.name)
def test_steps_go_one_after_another_because_triton_dies_of_two_that_fail_side_by_side(model):
    steps = list(read(Path(model.name) / "config.pbtxt").ensemble_scheduling.step)
    known = {tensor.name for tensor in model.inputs}
    while steps:
        ready = [step for step in steps if set(step.input_map.values()) <= known]
        assert len(ready) == 1, [step.model_name for step in ready]
        known |= set(ready[0].output_map.values())
        steps.remove(ready[0])


@pytest.mark.parametrize("model", contract.ENSEMBLES, ids=lambda model: model.name)
def test_no_step_is_an_ensemble_because_those_never_learn_that_their_caller_has_left(model):
    steps = {step.model_name for step in read(Path(model.name) / "config.pbtxt").ensemble_scheduling.step}
    assert steps <= {step.name for step in contract.STEPS}
