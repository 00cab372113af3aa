"""Removes the padding inside the CPU profile's text tower: token-wise operators run on [tokens, width].

Between attentions an encoder computes each token by itself. That is nearly all of its cost, a good quarter of it for
padding, which attention ignores. Here padding is removed before the first such operator (rows), and put back, as any
finite numbers, only before an operator that looks at several tokens. ONNX Runtime then also adds the bias within the
matrix product. All operators are ONNX's own, inputs and outputs stay, and the parity gate compares the result with the
eager model.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from querylife.contract import TOKEN_ROLES, TokenRole


def unpad(path: Path) -> None:
    """Rewrite in place an ONNX file that has the contract's token_roles among its inputs."""
    model = onnx.load(str(path))
    graph = model.graph
    nodes = _rewritten_nodes(graph)
    del graph.node[:]
    del graph.value_info[:]
    graph.node.extend(nodes)
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))


def _rewritten_nodes(graph: onnx.GraphProto) -> list[NodeProto]:
    """The graph's nodes, the token-wise ones on rows, and conversions between them and the others."""
    shapes = _Shapes(graph)
    layouts = _Layouts(shapes, _RowIndex(graph))
    for node in graph.node:
        if shapes.is_tokenwise(node) and layouts.pays(node):
            layouts.add_on_rows(node)
        else:
            for name in node.input:
                layouts.make_padded(name)
            layouts.nodes.append(node)
    for value in graph.output:
        layouts.make_padded(value.name)
    return layouts.nodes


class _Shapes:
    """What is known of the graph's values: axes of activations, ranks of weights."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.axes = {value.name: _axes(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        self.weight_ranks = {weight.name: len(weight.dims) for weight in graph.initializer}
        self._batch_and_length = self.axes[TOKEN_ROLES.name]

    def is_tokenwise(self, node: NodeProto) -> bool:
        """Whether each token's result depends on that token and on weights alone."""
        activations = self.activations(node)
        ranks = [self.weight_ranks[name] for name in node.input if name in self.weight_ranks]
        if not all(self._holds_tokens(name) for name in (*activations, *node.output)):
            return False
        match node.op_type:
            case "MatMul":
                return ranks == [2]
            case "LayerNormalization":
                return all(rank == 1 for rank in ranks)
            case "Mul" if len(activations) == 2:  # may be a mask, which zeroes padding for the sum that follows
                return False
            case "Add" | "Mul" | "Gelu":
                return all(rank < 2 for rank in ranks)
        return False

    def activations(self, node: NodeProto) -> list[str]:
        return [name for name in node.input if name not in self.weight_ranks]

    def width(self, name: str) -> int:
        return int(self.axes[name][2])

    def _holds_tokens(self, name: str) -> bool:
        """Whether a value is [batch, length, width] with a known width."""
        axes = self.axes.get(name, ())
        return len(axes) == 3 and axes[:2] == self._batch_and_length and isinstance(axes[2], int)


class _RowIndex:
    """Nodes that compute, once per graph and only where they are asked for, which tokens are rows."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._added: set[str] = set()
        self.nodes: list[NodeProto] = []

    def of_rows(self) -> str:
        """[rows] int64: where in the flattened batch the rows come from."""
        if "rows_kept" not in self._added:
            keep = self._is_row()
            count = self.add("ReduceProd", [self.sizes()], "rows_count", keepdims=0)
            every = self.add(
                "Range", [self.constant("rows_zero", 0), count, self.constant("rows_one", 1)], "rows_every"
            )
            self.add("Compress", [every, keep], "rows_kept")
        return "rows_kept"

    def of_tokens(self) -> str:
        """[batch * length] int64: each token's row; for padding, that of the last token before it."""
        if "rows_places" not in self._added:
            counted = self.add("Cast", [self._is_row()], "rows_counted", to=TensorProto.INT64)
            total = self.add("CumSum", [counted, self.constant("rows_zero", 0)], "rows_total")
            self.add("Sub", [total, self.constant("rows_one", 1)], "rows_places")
        return "rows_places"

    def sizes(self) -> str:
        """[2] int64: batch and length."""
        return "rows_sizes" if "rows_sizes" in self._added else self.add("Shape", [TOKEN_ROLES.name], "rows_sizes")

    def constant(self, name: str, value: int | list[int], dtype: type[np.integer[Any]] = np.int64) -> str:
        if name not in self._added:
            self._graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
            self._added.add(name)
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: int) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}_node", **attributes))
        self._added.add(output)
        return output

    def _is_row(self) -> str:
        """[batch * length] bool: tokens that are not padding, and each text's first, so that there always is a row."""
        if "rows_keep" not in self._added:
            zero, one = self.constant("rows_zero", 0), self.constant("rows_one", 1)
            padding = self.constant("rows_padding", TokenRole.PADDING, np.int32)
            used = self.add("Not", [self.add("Equal", [TOKEN_ROLES.name, padding], "rows_padded")], "rows_used")
            length = self.add("Gather", [self.sizes(), one], "rows_length")
            tokens = self.add("Range", [zero, length, one], "rows_tokens")
            either = self.add("Or", [used, self.add("Equal", [tokens, zero], "rows_start")], "rows_either")
            self.add("Reshape", [either, self.constant("rows_flat", [-1])], "rows_keep")
        return "rows_keep"


class _Layouts:
    """In which layouts each value exists: padded, [batch, length, width], or as rows, [rows, width]."""

    def __init__(self, shapes: _Shapes, index: _RowIndex) -> None:
        self._shapes, self._index = shapes, index
        self._rows: dict[str, str] = {}  # value -> its name as rows
        self._padded: set[str] = set()  # values of _rows that exist padded as well
        self.nodes = index.nodes

    def pays(self, node: NodeProto) -> bool:
        """Whether to run a token-wise node on rows: additions and activations only where a value is rows already."""
        is_cheap = node.op_type not in ("MatMul", "LayerNormalization")
        return not is_cheap or any(name in self._rows for name in self._shapes.activations(node))

    def add_on_rows(self, node: NodeProto) -> None:
        """Append a node with its activations and its output as rows."""
        for position, name in enumerate(node.input):
            if name not in self._shapes.weight_ranks:
                node.input[position] = self._make_rows(name)
        (output,) = node.output
        self._rows[output] = node.output[0] = f"{output}_rows"
        self.nodes.append(node)

    def make_padded(self, name: str) -> None:
        """[rows, width] to [batch, length, width], for a value that exists as rows only."""
        if name not in self._rows or name in self._padded:
            return
        width = self._shapes.width(name)
        flat = self._index.add("Gather", [self._rows[name], self._index.of_tokens()], f"{name}_flat", axis=0)
        sizes = [self._index.sizes(), self._index.constant(f"rows_width_{width}", [width])]
        self._index.add("Reshape", [flat, self._index.add("Concat", sizes, f"{name}_sizes", axis=0)], name)
        self._padded.add(name)

    def _make_rows(self, name: str) -> str:
        """[batch, length, width] to [rows, width]. Returns the name of the value as rows."""
        if name not in self._rows:
            width = self._shapes.width(name)
            shape = self._index.constant(f"rows_of_{width}", [-1, width])
            flat = self._index.add("Reshape", [name, shape], f"{name}_flat")
            self._rows[name] = self._index.add("Gather", [flat, self._index.of_rows()], f"{name}_rows", axis=0)
            self._padded.add(name)
        return self._rows[name]


def _axes(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    return tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
