"""`python -m querylife.serving.prepack MODEL.onnx=PREPACKED.onnx ...`: the process that prepacking.py starts."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from querylife.serving.backend.towers import inference_session, session_options

ROWS, LENGTH = 2, 8  # of the inputs that both graphs are compared on
SHAREABLE_BYTES = "1024"  # smaller weights stay in the graph


def main(pairs: list[str]) -> int:
    """Write each graph and its weights, laid out for this processor, and compare the answers."""
    for pair in pairs:
        source, _, target = pair.partition("=")
        prepack(Path(source), Path(target))
    return 0


def prepack(source: Path, target: Path) -> None:
    """Write target and target.data. Raises RuntimeError where they answer otherwise than source."""
    options = session_options(threads=1)
    options.log_severity_level = 3  # it warns that the files are for this processor only
    options.optimized_model_filepath = str(target)
    for entry, value in (
        ("optimized_model_external_initializers_file_name", f"{target.name}.data"),
        ("optimized_model_external_initializers_min_size_in_bytes", SHAREABLE_BYTES),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{entry}", value)
    wanted = _answers(inference_session(source, options))
    found = _answers(inference_session(target, session_options(threads=1), is_prepacked=True))
    if not all(np.array_equal(one, other) for one, other in zip(wanted, found, strict=True)):
        raise RuntimeError(f"{source}: found other answers from the prepacked tower, want the same")


def _answers(session: Any) -> list[NDArray[Any]]:
    """To inputs of ones, which are valid as ids, roles, masks and pixels."""
    inputs = {}
    for tensor in session.get_inputs():
        shape = [ROWS, *(axis if isinstance(axis, int) else LENGTH for axis in tensor.shape[1:])]
        dtype = tensor.type.removeprefix("tensor(").removesuffix(")")
        inputs[tensor.name] = np.ones(shape, {"float": "float32"}.get(dtype, dtype))
    answers: list[NDArray[Any]] = session.run(None, inputs)
    return answers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
