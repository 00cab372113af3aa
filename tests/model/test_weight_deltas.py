"""Checkpoints in half precision store trained encoder matrices as small differences, and lose next to nothing by it."""

from pathlib import Path

import torch
from tiny_runs import tiny_model

from querylife.model.query_life import load_checkpoint, save_checkpoint
from querylife.model.weight_deltas import with_deltas, without_deltas


def test_a_matrix_comes_back_within_half_a_step_of_its_rows_largest_difference() -> None:
    torch.manual_seed(0)
    start = {"text.encoder.layer.weight": torch.randn(8, 16)}
    difference = torch.randn(8, 16) * torch.logspace(-6, -1, 8).unsqueeze(1)
    difference[3] = 0
    weights = {"text.encoder.layer.weight": start["text.encoder.layer.weight"] + difference}
    stored = with_deltas(weights, start)
    assert {name: value.dtype for name, value in stored.items()} == {
        "text.encoder.layer.weight.delta": torch.int8,
        "text.encoder.layer.weight.scale": torch.float32,
    }
    error = (without_deltas(stored, start)["text.encoder.layer.weight"] - weights["text.encoder.layer.weight"]).abs()
    largest = (
        (weights["text.encoder.layer.weight"] - start["text.encoder.layer.weight"]).abs().amax(dim=1, keepdim=True)
    )
    assert (error <= largest / 254 + 1e-6).all()


def test_biases_and_our_own_weights_stay_in_half_precision() -> None:
    weights = {"text.encoder.layer.bias": torch.randn(4), "fusion.head.weight": torch.randn(4, 4)}
    stored = with_deltas(weights, {})
    assert stored.keys() == weights.keys()
    assert all(value.dtype == torch.float16 for value in stored.values())


def test_a_trained_checkpoint_comes_back_in_less_space(tmp_path: Path) -> None:
    model = tiny_model(tmp_path).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".encoder." in name:
                value.add_(0.01 * torch.randn_like(value))
    save_checkpoint(model, tmp_path / "exact", torch.float32)
    save_checkpoint(model, tmp_path / "small")
    exact, small = (tmp_path / name / "model.safetensors" for name in ("exact", "small"))
    assert small.stat().st_size < 0.5 * exact.stat().st_size
    again = load_checkpoint(tmp_path / "small").state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=1e-3, atol=5e-4)
