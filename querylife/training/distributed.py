"""Distributed training (torchrun): gathers and sums that make several processes equal to one."""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def join(device: torch.device | None = None) -> tuple[int, int]:
    """(rank, world size); joins torchrun's group where this process belongs to one: over NCCL on CUDA, else gloo."""
    if "RANK" not in os.environ:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device is not None and device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def leave() -> None:
    """Leave torchrun's group, where this process has joined one; every process does so at the same place."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank_slice(count: int, place: tuple[int, int]) -> slice:
    """The rows that one rank computes. count: rows of the whole batch. place: (rank, world size)."""
    rank, world = place
    return slice(rank * count // world, (rank + 1) * count // world)


def all_gather(rows: Tensor) -> Tensor:
    """Every rank's rows, in rank order: [world * rows, ...]. Gradients reach the own rows only.

    Each rank then computes the same loss over the whole batch, so summing parameter gradients over ranks gives the
    gradient that one process would have had.
    """
    return _Gather.apply(rows) if dist.is_initialized() else rows


def from_first(value: float) -> float:
    """The first rank's value, on every rank."""
    if not dist.is_initialized():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # NCCL sends what lies on its GPU
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        context.count = len(rows)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        first = dist.get_rank() * context.count
        return gradient[first : first + context.count]


def sum_gradients(parameters: Iterable[nn.Parameter], shared: Iterable[nn.Parameter]) -> None:
    """Add up gradients over ranks. shared: parameters of the loss itself, whose gradient is whole on every rank."""
    if not dist.is_initialized():
        return
    for divisor, group in ((1, parameters), (dist.get_world_size(), shared)):
        for parameter in group:
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            dist.all_reduce(gradient)
            parameter.grad = gradient / divisor
