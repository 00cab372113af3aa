"""Training on a GPU, as far as a machine without one can tell: its place is taken by torch's meta device.

Meta tensors hold no data. An operation on tensors of two devices fails here, so one that stayed on the CPU is found.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental import _config as fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from querylife.errors import ConfigError
from querylife.model.devices import own_device
from querylife.model.image_features import PictureSource
from querylife.model.query_life import QueryLife
from querylife.training.data import make_distillation
from querylife.training.distillation import Distillation
from querylife.training.false_negatives import NAMES, make_filter
from querylife.training.gate import gate_batch
from querylife.training.pictures import spool_pictures
from querylife.training.run import Run, TrainingConfig
from querylife.training.train import losses_of
from tests.tiny_runs import PICTURES, TinyBatches, pictures, tiny_model, tiny_training, write_features

RUNNING = 0, 1  # rank and world size


# What may see two devices: what moves tensors, and picking rows of one by numbers on the CPU.
MOVES = {"aten::copy_", "aten::_to_copy", "aten::index.Tensor", "aten::index_put", "aten::index_put_"}


class OneDevice(TorchDispatchMode):
    """Raises RuntimeError for an operation on tensors of more than one device; numbers may lie anywhere."""

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor) and leaf.dim() > 0]
        devices = sorted({tensor.device.type for tensor in given})
        if len(devices) > 1 and func.name() not in MOVES:
            raise RuntimeError(f"{func.name()}: found tensors on the devices {' and '.join(devices)}")
        if func.name() == "aten::_local_scalar_dense" and args[0].is_meta:
            return args[0].dtype.is_floating_point  # a value that is read in Python, where there is none
        return func(*args, **(kwargs or {}))


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[TrainingConfig, QueryLife, Distillation]:
    """A tiny model, and what its training needs of files, before the model has no data."""
    config = tiny_training(tmp_path, tmp_path / "out", 1, distill_texts=4)
    model = tiny_model(tmp_path)
    general = make_distillation(config, model)
    assert general
    return config, model, general


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"genfilt"}))
def test_a_step_on_another_device_leaves_no_tensor_on_the_cpu(
    prepared: tuple[TrainingConfig, QueryLife, Distillation], tmp_path: Path, name: str, augment: bool
) -> None:
    config, model, general = prepared
    shown: PictureSource = spool_pictures(model.vision, pictures())
    if not augment:
        shown = write_features(tmp_path / "features", model.vision)
    run = Run(config, model, TinyBatches().classes)
    for module in (model, run.losses, general._start):
        module.to("meta")
    with OneDevice(), fx.patch(meta_nonzero_assume_all_nonzero=True):
        batch = TinyBatches().sample(0)
        pictures_now, ids = shown.at_step(0, 0), range(PICTURES)
        parts = losses_of(config, model, run.losses, batch, pictures_now, ids, make_filter(name), RUNNING)
        parts["distill"] = general.loss(model.text, 0, RUNNING, bfloat16=config.bfloat16)
        torch.stack(list(parts.values())).sum().backward()
        trained = [value for value in (*model.parameters(), *run.losses.parameters()) if value.requires_grad]
        assert {value.device.type for value in trained} == {"meta"}
        assert {value.grad.device.type for value in trained if value.grad is not None} == {"meta"}
        inputs = gate_batch(config, model, run.losses.tokenizer, batch, list(ids), shown)
        assert {part.device.type for part in (inputs.query, inputs.grades, *inputs.parts)} == {"meta"}


def test_a_tensor_that_is_left_behind_is_found(prepared: tuple[TrainingConfig, QueryLife, Distillation]) -> None:
    _, model, _ = prepared
    model.to("meta")
    with OneDevice(), pytest.raises(RuntimeError, match="found tensors on the devices cpu and meta"):
        model.text(torch.zeros(1, 4, dtype=torch.int32), torch.ones(1, 4, dtype=torch.int32))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_gpu_says_so() -> None:
    with pytest.raises(ConfigError, match="found 0 CUDA devices, want 1 or more, or --device cpu"):
        own_device("cuda")
