"""Int8 towers for the CPU profile: every large matrix product in 8 bits, everything else in float32.

Weights have one scale per output channel. Activations get one per token (or patch) while the graph runs, so a row's
vector depends neither on its neighbours nor on its padding; ONNX Runtime's own dynamic quantisation takes one scale for
a whole batch. Channels that are far louder than the others would use up the 8 bits: behind normalisations they are
turned down, and their weights up (SmoothQuant, Xiao 2022), by what a few drawn products show.

Only ONNX Runtime runs these graphs: dequantisation is an operator of its own domain, because as separate operators it
costs a fifth of the text tower's time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from querylife.contract import TOWERS, Model
from querylife_build.parity.backends import Array
from querylife_build.parity.reference import Eager

SMALLEST = 128  # products with an axis below this stay in float32: there is nothing to win
SMOOTHING = 0.7  # share of a channel's loudness that moves into its weights; 0.3 and 0.5 were worse in the text tower
LEVELS = 127  # on either side of zero
_DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class Product:
    """A matrix product with constant weights. weight: [inputs, outputs] float32."""

    node: onnx.NodeProto
    weight: Array


def quantise_towers(fp32: Mapping[Model, Path], int8: Mapping[Model, Path], eager: Eager) -> None:
    """Write int8 copies of the towers. eager: whose sample's inputs show how loud each channel is."""
    for tower in TOWERS:
        quantise(tower, fp32[tower], int8[tower], eager.inputs(tower))


def quantise(tower: Model, fp32: Path, int8: Path, inputs: list[Array], *, smallest: int = SMALLEST) -> None:
    """Write an int8 copy of one tower.

    inputs: an example batch in the contract's order. smallest: a product with a shorter axis stays as it is.
    """
    model = onnx.load(str(fp32))
    graph = model.graph
    by_input = _products(graph, smallest)
    normalised = {node.output[0] for node in graph.node if node.op_type == "LayerNormalization"}
    loudness = _loudness(model, tower, [name for name in by_input if name in normalised], inputs)
    constants = {"int8_zero": np.uint8(128), "int8_one": np.float32(1), "int8_level": np.float32(1 / LEVELS)}
    constants |= {"int8_least": np.float32(1e-12), "int8_last_axis": np.array([-1], np.int64)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    before: dict[str, list[onnx.NodeProto]] = {}
    instead: dict[str, list[onnx.NodeProto]] = {}
    for name, products in by_input.items():
        weights = [product.weight for product in products]
        before[products[0].node.output[0]] = _quantised_input(name, is_smoothed=name in loudness)
        if name in loudness:
            factor = _smoothing(loudness[name], weights)
            graph.initializer.append(numpy_helper.from_array(1 / factor, f"{name}_factor"))
            weights = [weight * factor[:, None] for weight in weights]
        for product, wide in zip(products, weights, strict=True):
            weight, scale = _quantised_weight(wide)
            output = product.node.output[0]
            graph.initializer.append(numpy_helper.from_array(weight, f"{output}_weight"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{output}_weight_scale"))
            instead[output] = _product(name, output)
    nodes = [
        new for node in graph.node for new in (*before.get(node.output[0], ()), *instead.get(node.output[0], [node]))
    ]
    _replace(graph.node, [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes])
    used = {name for node in graph.node for name in node.input}
    _replace(graph.initializer, [weight for weight in list(graph.initializer) if weight.name in used])
    del graph.value_info[:]  # with it, ONNX Runtime 1.32 fuses additions into normalisations, which takes longer
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    int8.parent.mkdir(parents=True, exist_ok=True)
    unfinished = int8.with_name(int8.name + ".part")
    onnx.save(model, str(unfinished))
    unfinished.replace(int8)


def _products(graph: onnx.GraphProto, smallest: int) -> dict[str, list[Product]]:
    """Input -> the large products with constant weights that take it (query, key and value share theirs)."""
    weights = {weight.name: weight for weight in graph.initializer}
    found: dict[str, list[Product]] = {}
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and len(weight.dims) == 2 and min(weight.dims) >= smallest:
            found.setdefault(node.input[0], []).append(Product(node, numpy_helper.to_array(weight)))
    return found


def _loudness(model: onnx.ModelProto, tower: Model, names: list[str], inputs: list[Array]) -> dict[str, Array]:
    """Input of a product -> [channels] float32, the largest magnitude that each channel has in the example."""
    probed = onnx.ModelProto.FromString(model.SerializeToString())
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {tensor.name: array for tensor, array in zip(tower.inputs, inputs, strict=True)}
    values = session.run(names, feed) if names else []
    return {
        name: np.abs(value).reshape(-1, value.shape[-1]).max(axis=0) for name, value in zip(names, values, strict=True)
    }


def _smoothing(loudness: Array, weights: list[Array]) -> Array:
    """[channels] float32 to divide the input by and multiply the weights' rows by; its geometric mean is 1."""
    strength = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factor = np.maximum(loudness, 1e-5) ** SMOOTHING / np.maximum(strength, 1e-5) ** (1 - SMOOTHING)
    return (factor / np.exp(np.log(factor).mean())).astype(np.float32)


def _quantised_weight(weight: Array) -> tuple[Array, Array]:
    """[inputs, outputs] int8, and its scale [outputs] float32."""
    scale = np.maximum(np.abs(weight).max(axis=0) / LEVELS, 1e-12).astype(np.float32)
    return np.clip(np.round(weight / scale), -LEVELS, LEVELS).astype(np.int8), scale


def _quantised_input(name: str, is_smoothed: bool) -> list[onnx.NodeProto]:
    """To _int8, [..., channels] uint8 around 128, and _scale, [..., 1] float32."""
    low, high, peak, scale, levels = (f"{name}_{part}" for part in ("low", "high", "peak", "scale", "levels"))
    smooth = f"{name}_smooth" if is_smoothed else name
    smoothing = [helper.make_node("Mul", [name, f"{name}_factor"], [smooth])] if is_smoothed else []
    return [
        *smoothing,
        helper.make_node("ReduceMin", [smooth, "int8_last_axis"], [low], keepdims=1),
        helper.make_node("ReduceMax", [smooth, "int8_last_axis"], [high], keepdims=1),
        helper.make_node("Neg", [low], [f"{low}_negated"]),
        helper.make_node("Max", [f"{low}_negated", high, "int8_least"], [peak]),
        helper.make_node("Mul", [peak, "int8_level"], [scale]),
        helper.make_node("Div", [smooth, scale], [levels]),
        helper.make_node("QuantizeLinear", [levels, "int8_one", "int8_zero"], [f"{name}_int8"]),
    ]


def _product(name: str, output: str) -> list[onnx.NodeProto]:
    inputs = [f"{name}_int8", f"{output}_weight", "int8_one", f"{output}_weight_scale", "int8_zero"]
    return [
        helper.make_node("MatMulIntegerToFloat", inputs, [f"{output}_unscaled"], domain=_DOMAIN),
        helper.make_node("Mul", [f"{output}_unscaled", f"{name}_scale"], [output]),
    ]


def _replace(field: object, items: list[object]) -> None:
    del field[:]  # type: ignore[attr-defined]
    field.extend(items)  # type: ignore[attr-defined]
