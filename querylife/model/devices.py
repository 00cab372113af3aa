"""Where a model computes, and in which precision."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from querylife.errors import ConfigError

DEVICES = ("cpu", "cuda")
CPU = torch.device("cpu")


def own_device(kind: str) -> torch.device:
    """The device of this process: "cpu", or "cuda", of which torchrun's processes take one each.

    Raises ConfigError where there are fewer than processes.
    """
    if kind == "cpu":
        return CPU
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise ConfigError(f"device: found {count} CUDA devices, want {number + 1} or more, or --device cpu")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def device_of(module: nn.Module) -> torch.device:
    """Where the module's parameters lie, all of them in one place; the CPU for a module that has none."""
    first = next(module.parameters(), None)
    return CPU if first is None else first.device


def in_bfloat16(device: torch.device, *, enabled: bool) -> AbstractContextManager[object]:
    """A context that computes in bfloat16 where autocast allows."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if enabled else nullcontext()
