"""The CPU profile's text tower: what treats every token alike runs on rows, [rows, width], without the padding.

Between attentions an encoder computes each token by itself, and that is nearly all of its cost, a good quarter of it
for padding, which attention ignores. Here padding is left out before the first norm and put back, as any finite
numbers, only where a step looks at several tokens. ONNX Runtime then also adds the bias within the matrix product.
Operators are ONNX's own, inputs and outputs stay, and the parity gate holds the result to the eager model.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from querylife.contract import SEGMENTS, Segment


def run_on_rows(path: Path) -> None:
    """Rewrite in place an ONNX file that has the contract's segments among its inputs."""
    model = onnx.load(str(path))
    _Rewriter(model.graph).rewrite()
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))


class _Rewriter:
    """Copies a graph's nodes, and keeps values as rows from one token-wise node to the next."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._axes = {value.name: _axes(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        self._ranks = {weight.name: len(weight.dims) for weight in graph.initializer}
        self._tokens = self._axes[SEGMENTS.name]  # names of the axes batch and length
        self._rows: dict[str, str] = {}  # value -> its name as rows
        self._whole: set[str] = set()  # values that also exist as they did
        self._added: set[str] = set()
        self._nodes: list[NodeProto] = []

    def rewrite(self) -> None:
        for node in list(self._graph.node):
            if self._is_tokenwise(node):
                self._run_on_rows(node)
            else:
                for name in node.input:
                    self._leave(name)
                self._nodes.append(node)
        for value in self._graph.output:
            self._leave(value.name)
        del self._graph.node[:]
        del self._graph.value_info[:]
        self._graph.node.extend(self._nodes)

    def _is_tokenwise(self, node: NodeProto) -> bool:
        """Whether each token's result depends on that token and on weights alone."""
        values = [name for name in node.input if name not in self._ranks]
        weights = [self._ranks[name] for name in node.input if name in self._ranks]
        if not all(self._holds_tokens(name) for name in (*values, *node.output)):
            return False
        match node.op_type:
            case "MatMul":
                return weights == [2]
            case "LayerNormalization":
                return all(rank == 1 for rank in weights)
            case "Mul" if len(values) == 2:  # may be a mask, which zeroes padding for the sum that follows
                return False
            case "Add" | "Mul" | "Gelu":
                return all(rank < 2 for rank in weights) and any(name in self._rows for name in values)
        return False

    def _holds_tokens(self, name: str) -> bool:
        axes = self._axes.get(name, ())
        return len(axes) == 3 and axes[:2] == self._tokens and isinstance(axes[2], int)

    def _width(self, name: str) -> int:
        return int(self._axes[name][2])

    def _run_on_rows(self, node: NodeProto) -> None:
        for place, name in enumerate(node.input):
            if name not in self._ranks:
                node.input[place] = self._enter(name)
        (output,) = node.output
        self._rows[output] = node.output[0] = f"{output}_rows"
        self._nodes.append(node)

    def _enter(self, name: str) -> str:
        """[batch, length, width] to [rows, width]."""
        if name not in self._rows:
            width = self._width(name)
            flat = self._add("Reshape", [name, self._weight(f"rows_of_{width}", [-1, width])], f"{name}_flat")
            self._rows[name] = self._add("Gather", [flat, self._kept()], f"{name}_rows", axis=0)
            self._whole.add(name)
        return self._rows[name]

    def _leave(self, name: str) -> None:
        """[rows, width] to [batch, length, width], for a value that exists as rows only."""
        if name not in self._rows or name in self._whole:
            return
        width = self._width(name)
        flat = self._add("Gather", [self._rows[name], self._places()], f"{name}_flat", axis=0)
        sizes = [self._sizes(), self._weight(f"rows_width_{width}", [width])]
        self._add("Reshape", [flat, self._add("Concat", sizes, f"{name}_sizes", axis=0)], name)
        self._whole.add(name)

    def _kept(self) -> str:
        """[rows] int64: where in the flattened batch the rows come from."""
        if "rows_kept" not in self._added:
            keep = self._keep()
            count = self._add("ReduceProd", [self._sizes()], "rows_count", keepdims=0)
            every = self._add("Range", [self._weight("rows_zero", 0), count, self._weight("rows_one", 1)], "rows_every")
            self._add("Compress", [every, keep], "rows_kept")
        return "rows_kept"

    def _places(self) -> str:
        """[batch * length] int64: each token's row; for padding, that of the last token before it."""
        if "rows_places" not in self._added:
            counted = self._add("Cast", [self._keep()], "rows_counted", to=TensorProto.INT64)
            total = self._add("CumSum", [counted, self._weight("rows_zero", 0)], "rows_total")
            self._add("Sub", [total, self._weight("rows_one", 1)], "rows_places")
        return "rows_places"

    def _keep(self) -> str:
        """[batch * length] bool: tokens that are not padding, and each text's first, so that there always is a row."""
        if "rows_keep" not in self._added:
            zero, one = self._weight("rows_zero", 0), self._weight("rows_one", 1)
            padding = self._weight("rows_padding", Segment.PADDING, np.int32)
            used = self._add("Not", [self._add("Equal", [SEGMENTS.name, padding], "rows_padded")], "rows_used")
            length = self._add("Gather", [self._sizes(), one], "rows_length")
            tokens = self._add("Range", [zero, length, one], "rows_tokens")
            either = self._add("Or", [used, self._add("Equal", [tokens, zero], "rows_start")], "rows_either")
            self._add("Reshape", [either, self._weight("rows_flat", [-1])], "rows_keep")
        return "rows_keep"

    def _sizes(self) -> str:
        """[2] int64: batch and length."""
        return "rows_sizes" if "rows_sizes" in self._added else self._add("Shape", [SEGMENTS.name], "rows_sizes")

    def _weight(self, name: str, value: int | list[int], dtype: type[np.integer[Any]] = np.int64) -> str:
        if name not in self._added:
            self._graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
            self._added.add(name)
        return name

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: int) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}_node", **attributes))
        self._added.add(output)
        return output


def _axes(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    return tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
