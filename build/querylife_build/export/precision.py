"""Towers rewritten for export: their deep parts in the wanted precision, pooling and normalisation in float32.

The towers stay as training knows them; what only a compiler needs happens here, on a copy.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from querylife.contract import TEXT_TOWER, Model
from querylife.errors import ArtifactError

ATTENTIONS = ("operator", "spelled")  # of half precision: ONNX's Attention, or its MatMul and Softmax one by one
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# In half precision, scaled_dot_product_attention becomes one Attention operator, which TensorRT maps to its fused
# kernels. In float32 there is no such operator, and the exporter would spell it out with IsNaN and Where around it.
_PLAIN = "querylife_plain"
_DEEP = ("encoder", "layers")  # what towers call the parts that hold nearly all their arithmetic


def for_export(tower: Model, module: nn.Module, precision: str, attention: str = "operator") -> nn.Module:
    """A copy of a tower's module to be traced. Takes and gives the contract's tensors, whatever the precision.

    attention: one of ATTENTIONS; float32 has it spelled always. In half precision, which compilers get, ids outside the
    vocabulary are clipped: TensorRT would read whatever lies beside its table. Raises ArtifactError when the module has
    no part that could run in that precision.
    """
    dtype = DTYPES[precision]
    module = copy.deepcopy(module)
    deep = [name for name, _ in module.named_children() if name in _DEEP]
    if not deep:
        raise ArtifactError(f"{tower.name}: found no part named {' or '.join(_DEEP)}, want one")
    implementation = _PLAIN if precision == "fp32" or attention == "spelled" else "sdpa"
    for name in deep:
        part = getattr(module, name)
        if isinstance(part, nn.ModuleList):
            setattr(module, name, nn.ModuleList(_Deep(child, dtype, implementation) for child in part))
        else:
            setattr(module, name, _Deep(part, dtype, implementation))
    if tower is TEXT_TOWER and precision != "fp32":
        module = _ClippedIds(module, _vocabulary(module))
    return module.eval()


class _ClippedIds(nn.Module):
    """Runs a text tower on ids that its embedding has."""

    def __init__(self, tower: nn.Module, vocabulary: int) -> None:
        super().__init__()
        self.tower, self.vocabulary = tower, vocabulary

    def forward(self, token_ids: Tensor, token_roles: Tensor) -> Any:
        return self.tower(token_ids.clamp(0, self.vocabulary - 1), token_roles)


def _vocabulary(module: nn.Module) -> int:
    """Rows of the largest embedding table: words outnumber positions and types."""
    return max(part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding))


class _Deep(nn.Module):
    """Runs a module in dtype between float32 neighbours, with masks ready for its attention."""

    def __init__(self, part: nn.Module, dtype: torch.dtype, attention: str) -> None:
        super().__init__()
        self.part, self.dtype = part.to(dtype), dtype
        if hasattr(part, "set_attn_implementation"):  # an encoder of transformers
            part.set_attn_implementation(attention)  # type: ignore[operator]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        mask = named.get("attention_mask")
        if mask is not None and mask.ndim == 2:  # one of four axes is additive already
            named["attention_mask"] = additive_mask(mask, self.dtype)
        outputs = self.part(*_cast(inputs, self.dtype), **_cast(named, self.dtype))
        return _cast(outputs, torch.float32)


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[batch, length] of 0 and 1 to [batch, 1, length, length], 0 where attended and the lowest number elsewhere.

    transformers would build the same out of Range, And, GatherND and Where, per graph; encoders take a mask of four
    axes as it is. Spelled out to four axes, because the Attention operator does not broadcast everywhere.
    """
    lowest = (1 - mask.to(dtype)) * torch.finfo(dtype).min
    return lowest[:, None, None, :].expand(-1, 1, mask.shape[1], -1)


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in its four operators. query, key, value: [batch, heads, length, head_width]."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    weights = torch.softmax(scores if attention_mask is None else scores + attention_mask, dim=-1)
    return (weights @ value).transpose(1, 2), None  # [batch, length, heads, head_width]


AttentionInterface.register(_PLAIN, _plain_attention)
# Masks come ready from _Deep; where there is none, transformers would build one of zeros.
AttentionMaskInterface.register(_PLAIN, lambda *_, **__: None)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """The same tensor, tuple, list or mapping (such as transformers' outputs), its floating tensors in dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)({name: _cast(item, dtype) for name, item in value.items()})
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype) for item in value)
    return value
