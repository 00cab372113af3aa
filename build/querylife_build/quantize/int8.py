"""Int8 towers for the CPU profile: every large matrix product in 8 bits, everything else in float32.

Weights have one scale per output channel. Activations get one per token (or patch) while the graph runs, so a row's
vector depends neither on its neighbours nor on its padding; ONNX Runtime's own dynamic quantisation takes one scale for
a whole batch. Channels much larger than the others would use up the 8 bits: behind normalisations they are scaled
down, and their weights up (SmoothQuant, Xiao 2022), by the largest activations of a few drawn products.

Processors without VNNI add two products of unsigned activations and signed weights in 16 bits, and saturate (the
instruction vpmaddubsw). So the scale of a channel also keeps two neighbouring weights of one sign at 128 or less
together: 255 * 128 fits into 16 bits, and the answer is exact on AVX2, AVX-512, VNNI and AMX alike. That costs a third
of a bit; 7-bit weights would cost a whole one (docs/explanation/exports.md).

Only ONNX Runtime runs these graphs: dequantisation is an operator of its own domain, because as separate operators it
costs a fifth of the text tower's time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from querylife.contract import Model
from querylife_build.parity.backends import Array
from querylife_build.parity.reference import ReferenceOutputs

SMALLEST = 128  # products with an axis below this stay in float32: there is nothing to win
SMOOTHING = 0.7  # share of a channel's magnitude that moves into its weights; 0.3 and 0.5 were worse in the text tower
LEVELS = 127  # on either side of zero
MAX_PAIR_SUM = 128  # of two neighbouring weights of one sign: 255 * 128 is the most that 16 bits hold
_DOMAIN = "com.microsoft"
_CONSTANTS = {
    "int8_zero": np.uint8(128),
    "int8_one": np.float32(1),
    "int8_level": np.float32(1 / LEVELS),
    "int8_least": np.float32(1e-12),
    "int8_last_axis": np.array([-1], np.int64),
}


@dataclass(frozen=True)
class MatrixProduct:
    """A matrix product with constant weights. weight: [inputs, outputs] float32."""

    node: onnx.NodeProto
    weight: Array


@dataclass
class _Replacements:
    """before: output of a node -> nodes that go in front of it. instead: output of a product -> nodes for it.
    weights: new constants by name."""

    before: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    instead: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)


def quantise_towers(fp32: Mapping[Model, Path], int8: Mapping[Model, Path], reference: ReferenceOutputs) -> None:
    """Write int8 copies of the towers. reference: whose sample's inputs show how large each channel gets."""
    for tower in fp32:
        quantise(tower, fp32[tower], int8[tower], reference.inputs(tower))


def quantise(tower: Model, fp32: Path, int8: Path, inputs: list[Array], *, smallest: int = SMALLEST) -> None:
    """Write an int8 copy of one tower.

    inputs: an example batch in the contract's order. smallest: a product with a shorter axis stays as it is.
    """
    model = onnx.load(str(fp32))
    products = _products(model.graph, smallest)
    normalised = {node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    absmax = activation_absmax(model, tower, [name for name in products if name in normalised], inputs)
    replacements = _Replacements(weights={name: np.asarray(value) for name, value in _CONSTANTS.items()})
    for name, group in products.items():
        _quantise_group(name, group, absmax.get(name), replacements)
    _replace_nodes(model.graph, replacements)
    del model.graph.value_info[:]  # with it, ONNX Runtime 1.32 fuses additions into normalisations, which takes longer
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    int8.parent.mkdir(parents=True, exist_ok=True)
    unfinished = int8.with_name(int8.name + ".part")
    onnx.save(model, str(unfinished))
    unfinished.replace(int8)


def _products(graph: onnx.GraphProto, smallest: int) -> dict[str, list[MatrixProduct]]:
    """Input -> the large products with constant weights that take it (query, key and value share theirs)."""
    weights = {weight.name: weight for weight in graph.initializer}
    by_input: dict[str, list[MatrixProduct]] = {}
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and len(weight.dims) == 2 and min(weight.dims) >= smallest:
            by_input.setdefault(node.input[0], []).append(MatrixProduct(node, numpy_helper.to_array(weight)))
    return by_input


def activation_absmax(model: onnx.ModelProto, tower: Model, names: list[str], inputs: list[Array]) -> dict[str, Array]:
    """Activation name -> [channels] float32, the largest magnitude that each channel has in the example."""
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


def _quantise_group(
    name: str, products: list[MatrixProduct], absmax: Array | None, replacements: _Replacements
) -> None:
    """Quantise the products that share the activation name. absmax: its channels', where it is to be smoothed."""
    weights = [product.weight for product in products]
    replacements.before[products[0].node.output[0]] = _quantised_input(name, is_smoothed=absmax is not None)
    if absmax is not None:
        factor = _smoothing(absmax, weights)
        replacements.weights[f"{name}_factor"] = 1 / factor
        weights = [weight * factor[:, None] for weight in weights]
    for product, weight in zip(products, weights, strict=True):
        output = product.node.output[0]
        quantised, scale = quantised_weight(weight)
        replacements.weights |= {f"{output}_weight": quantised, f"{output}_weight_scale": scale}
        replacements.instead[output] = _product(name, output)


def _smoothing(absmax: Array, weights: list[Array]) -> Array:
    """[channels] float32 to divide the input by and multiply the weights' rows by; its geometric mean is 1."""
    strength = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factor = np.maximum(absmax, 1e-5) ** SMOOTHING / np.maximum(strength, 1e-5) ** (1 - SMOOTHING)
    return (factor / np.exp(np.log(factor).mean())).astype(np.float32)


def quantised_weight(weight: Array) -> tuple[Array, Array]:
    """[inputs, outputs] int8, and its scale [outputs] float32. Pairs of neighbours stay within MAX_PAIR_SUM."""
    # Rounding can add one half to each of the two: hence one level less than they may have.
    scale = np.maximum(pair_sums(weight).max(axis=0) / (MAX_PAIR_SUM - 1), 1e-12).astype(np.float32)
    return np.clip(np.round(weight / scale), -LEVELS, LEVELS).astype(np.int8), scale


def pair_sums(weight: Array) -> Array:
    """[inputs, outputs] to [pairs, outputs]: what the inputs 2i and 2i+1 add up to at most, of either sign."""
    even = np.pad(weight, ((0, len(weight) % 2), (0, 0)))
    signs = [np.maximum(sign * even, 0) for sign in (1, -1)]
    largest: Array = np.maximum(*(part[0::2] + part[1::2] for part in signs))
    return largest


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


def _replace_nodes(graph: onnx.GraphProto, replacements: _Replacements) -> None:
    """Put the new nodes and weights into the graph, and drop the weights that no node reads any more."""
    nodes = [
        onnx.NodeProto.FromString(new.SerializeToString())
        for node in graph.node
        for new in (
            *replacements.before.get(node.output[0], ()),
            *replacements.instead.get(node.output[0], [node]),
        )
    ]
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    kept += [numpy_helper.from_array(array, name) for name, array in replacements.weights.items() if name in used]
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
