"""Arrays to Triton's protobuf messages and back, without I/O: each rule is written once for both clients.

Tensors travel in raw_input_contents / raw_output_contents: little-endian, row-major; a BYTES tensor is a sequence of
4-byte lengths, each followed by its bytes.
"""

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as triton

from querylife.contract import DType, Model, Tensor
from querylife.errors import ContractError, ItemError, ItemFault, ServerFaultError

SERVICE = "/inference.GRPCInferenceService/"

Column = Sequence[bytes] | NDArray[np.generic]  # [batch] texts or encoded pictures, or [batch, ...] numbers
Row = NDArray[np.generic] | list[bytes]

_LENGTH = struct.Struct("<I")


def infer_request(model: Model, columns: Mapping[str, Column]) -> triton.ModelInferRequest:
    """One request; columns holds each input of the model. Raises ContractError where they disagree."""
    if set(columns) != {tensor.name for tensor in model.inputs}:
        raise ContractError(f"{model.name}: found inputs {sorted(columns)}, want {[t.name for t in model.inputs]}")
    request = triton.ModelInferRequest(model_name=model.name)
    for tensor in model.inputs:
        column = columns[tensor.name]
        if isinstance(column, np.ndarray):
            tensor.check(column)
            shape, raw = column.shape, np.ascontiguousarray(column).tobytes()
        else:
            shape, raw = (len(column), 1), b"".join(_LENGTH.pack(len(item)) + item for item in column)
        request.inputs.add(name=tensor.name, datatype=tensor.dtype.triton, shape=shape)
        request.raw_input_contents.append(raw)
    return request


def set_timeout(request: triton.ModelInferRequest, remaining_s: float) -> None:
    """Tell the server's queue when the caller will have left."""
    request.parameters["timeout"].int64_param = max(1, int(remaining_s * 1e6))


def read_response(model: Model, response: triton.ModelInferResponse, batch: int) -> dict[str, Row]:
    """Every output of the model: [batch, width] float32, [batch] float32 or bool, or batch byte strings.

    Raises ServerFaultError when the answer is not what the contract promises for this batch.
    """
    names = [output.name for output in response.outputs]
    if len(response.raw_output_contents) != len(names):
        raise ServerFaultError(f"{model.name}: found {len(response.raw_output_contents)} buffers for outputs {names}")
    indices = {name: index for index, name in enumerate(names)}
    rows: dict[str, Row] = {}
    for tensor in model.outputs:
        if tensor.name not in indices:
            raise ServerFaultError(f"{model.name}: found outputs {names}, want {tensor.name}")
        index = indices[tensor.name]
        try:
            rows[tensor.name] = _read(tensor, response.outputs[index], response.raw_output_contents[index], batch)
        except (ContractError, ValueError, struct.error) as error:
            raise ServerFaultError(f"{model.name}: corrupt answer: {error}") from error
    return rows


def _read(tensor: Tensor, header: triton.ModelInferResponse.InferOutputTensor, raw: bytes, batch: int) -> Row:
    if header.datatype != tensor.dtype.triton:
        raise ContractError(f"{tensor.name}: found {header.datatype}, want {tensor.dtype.triton}")
    shape = tuple(header.shape)
    if not shape or shape[0] != batch:
        raise ContractError(f"{tensor.name}: found shape {list(shape)}, want {batch} rows")
    if tensor.dtype is DType.BYTES:
        return _read_bytes(tensor.name, raw, batch)
    array = np.frombuffer(raw, tensor.dtype.numpy).reshape(shape)
    tensor.check(array)
    return array[:, 0] if tensor.shape == (1,) else array


def parse_fault(fault: bytes) -> ItemError:
    """Read one value of a fault tensor. Raises ServerFaultError for an unknown fault."""
    try:
        return ItemError.parse(fault.decode("utf-8"))
    except ValueError as error:
        raise ServerFaultError(f"found fault {fault!r}, want one of {', '.join(ItemFault)}") from error


def _read_bytes(name: str, raw: bytes, batch: int) -> list[bytes]:
    items: list[bytes] = []
    offset = 0
    for _ in range(batch):
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset += _LENGTH.size + length
        if offset > len(raw):
            raise ContractError(f"{name}: found {len(raw)} bytes, want at least {offset}")
        items.append(raw[offset - length : offset])
    if offset != len(raw):
        raise ContractError(f"{name}: found {len(raw)} bytes, want {offset}")
    return items
