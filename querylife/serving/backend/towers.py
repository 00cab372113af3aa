"""Towers of the CPU profile: sessions, batching and core sharing."""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from querylife.serving.backend.request_arrays import Arrays, Axes, check_axes

# Fused by ONNX Runtime 1.32, these two cost the CPU five to ten times what their parts do.
SLOWER_FUSED = ["SkipLayerNormFusion", "BiasGeluFusion"]
SPIN_US = "20"
PAUSE_S = 0.002  # longer than the pauses of a tower that others keep busy


class Session(Protocol):
    """A graph, loaded for this processor."""

    @property
    def input_axes(self) -> Mapping[str, Axes]:
        """Tensor name -> axes; a number is a size, a name one that varies."""

    @property
    def output_axes(self) -> Mapping[str, Axes]:
        """As input_axes."""

    def run(self, wanted: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """Compute the wanted outputs for [batch, ...] inputs."""


class OnnxTower:
    """One ONNX graph, run on the processors that this process may use."""

    def __init__(
        self,
        path: Path,
        threads: str = "all",
        core_sharing: "CoreSharing | None" = None,
        pause_s: float = PAUSE_S,
        precision: str = "fp32",
        max_tokens: int = 64,
        *,
        is_prepacked: bool = False,
    ) -> None:
        """threads: a number, "all" processors, or "half" of them for each of two instances.

        core_sharing: with it, a tower with "half" that runs alone uses all processors where that pays. pause_s: once
        others have run, only after it has been idle for so many seconds, because some of many short runs are alone by
        chance; 0 says that the tower's runs are long. precision, max_tokens: of the lock; only bf16 asks for the
        latter. is_prepacked: path was written for this processor (querylife.serving.prepacking). Raises ArtifactError
        where a precision needs OpenVINO, which is not installed.
        """

        def opened(count: int) -> Session:
            return _open_session(path, count, precision, max_tokens, is_prepacked=is_prepacked)

        self._session, self._core_sharing = opened(_count(threads)), core_sharing
        # A short run in int8 or bf16 takes two processors a tenth less time than one, and twice the processor time.
        gains = precision == "fp32" or (precision == "int8" and pause_s == 0)
        widens = gains and core_sharing is not None and threads == "half" and _count("half") < _count("all")
        self._all_cores = opened(_count("all")) if widens else self._session
        self._pause_s, self._uses_all_cores, self._ended = pause_s, False, 0.0
        outputs = self._session.output_axes
        self.outputs = list(outputs)
        is_fixed = all(isinstance(axis, int) for axes in outputs.values() for axis in axes[1:])
        self.row_shapes: dict[str, tuple[int, ...]] = (
            {name: tuple(int(axis) for axis in axes[1:]) for name, axes in outputs.items()} if is_fixed else {}
        )

    def check(self, inputs: Arrays) -> None:
        """Raise InvalidRequestError unless the inputs have the graph's axes."""
        check_axes(inputs, self._session.input_axes)

    def run(self, inputs: Arrays, wanted: Iterable[str]) -> Arrays:
        """Compute the wanted outputs for [batch, ...] inputs."""
        names = list(wanted)
        with self._session_of_run() as session:
            arrays = session.run(names, inputs)
        return dict(zip(names, arrays, strict=True))

    @contextmanager
    def _session_of_run(self) -> Iterator[Session]:
        """The session with all cores where no other tower runs, else the one with this tower's share."""
        with self._core_sharing.running() if self._core_sharing else nullcontext(False) as is_alone:
            self._uses_all_cores = is_alone and (self._uses_all_cores or self._has_paused())
            yield self._all_cores if self._uses_all_cores else self._session
        self._ended = time.monotonic()

    def _has_paused(self) -> bool:
        return time.monotonic() - self._ended >= self._pause_s


class CoreSharing:
    """Core sharing between the towers of one repository: a tower that runs alone uses all cores.

    A running tower holds a shared lock.

    Nobody waits for the lock, and the kernel releases it when a process dies.
    """

    def __init__(self, folder: Path) -> None:
        """folder: any folder, the same for all towers."""
        self._lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def running(self) -> Iterator[bool]:
        """A run of this tower. True where no other tower runs as it begins."""
        is_alone = self._try(fcntl.LOCK_EX)
        self._try(fcntl.LOCK_SH)
        try:
            yield is_alone
        finally:
            self._try(fcntl.LOCK_UN)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except OSError:  # held by others; or a file system without locks, on which no tower is ever alone
            return False
        return True


def session_options(threads: int) -> Any:
    """ONNX Runtime's options for a tower."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Workers meet a hundred times in a run, and to wake one takes as long as its work on a single query. To look
    # out for longer would burn a third of the CPU that decoding and tokenising need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    return options


def inference_session(path: Path, options: Any, *, is_prepacked: bool = False) -> Any:
    """ONNX Runtime's session. is_prepacked: the graph has been optimised (querylife.serving.prepacking)."""
    import onnxruntime  # noqa: PLC0415

    if is_prepacked:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED
    )


class OnnxRuntimeSession:
    """A graph in the precision it is written in, float32 or int8, run by ONNX Runtime."""

    def __init__(self, path: Path, threads: int, *, is_prepacked: bool = False) -> None:
        self._session = inference_session(path, session_options(threads), is_prepacked=is_prepacked)
        self.input_axes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}
        self.output_axes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_outputs()}

    def run(self, wanted: Sequence[str], inputs: Arrays) -> list[NDArray[Any]]:
        """As Session.run."""
        arrays: list[NDArray[Any]] = self._session.run(list(wanted), {name: inputs[name] for name in self.input_axes})
        return arrays


def _open_session(path: Path, threads: int, precision: str, max_tokens: int, *, is_prepacked: bool) -> Session:
    """precision: of the lock's tower. Raises ArtifactError where OpenVINO is wanted and not installed."""
    if precision != "bf16":
        return OnnxRuntimeSession(path, threads, is_prepacked=is_prepacked)
    from querylife.serving.backend.openvino_session import OpenVinoSession  # noqa: PLC0415  # a process needs one

    return OpenVinoSession(path, threads, max_tokens)


def _count(threads: str) -> int:
    processors = len(os.sched_getaffinity(0))
    shares = {"all": processors, "half": max(1, processors // 2)}
    return shares[threads] if threads in shares else int(threads)


def run_distinct(inputs: Arrays, run: Callable[[Arrays], Arrays]) -> Arrays:
    """Run rows that repeat only once: shoppers send one query with many products, catalogues repeat titles.

    inputs: [batch, ...] each; rows are the same when they agree in every input.
    """
    batch = len(next(iter(inputs.values())))
    keys = [b"".join(array[row].tobytes() for array in inputs.values()) for row in range(batch)]
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    if len(first) == batch:
        return run(inputs)
    rows = sorted(first.values())
    index_of = {keys[row]: index for index, row in enumerate(rows)}
    outputs = run({name: array[rows] for name, array in inputs.items()})
    indexes = [index_of[key] for key in keys]
    return {name: array[indexes] for name, array in outputs.items()}


def run_in_parts(inputs: Arrays, size: int, run: Callable[[Arrays], Arrays]) -> Arrays:
    """Run at most size rows at a time: what lies between the layers of more does not stay in the processor's caches.

    inputs: [batch, ...] each.
    """
    batch = len(next(iter(inputs.values())))
    if batch <= size:
        return run(inputs)
    starts = range(0, batch, size)
    parts = [run({name: array[start : start + size] for name, array in inputs.items()}) for start in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run_used(
    inputs: Arrays,
    used: NDArray[np.bool_],
    run: Callable[[Arrays], Arrays],
    row_shapes: Mapping[str, tuple[int, ...]],
) -> Arrays:
    """Run only the used rows; the outputs of the others are zeros, which is what the tower gives for them.

    inputs: [batch, ...] each. used: [batch] bool. row_shapes: of the outputs, float32; without them, a
    batch that uses no row runs one to learn them.
    """
    if used.all():
        return run(inputs)
    if row_shapes and not used.any():
        return {name: np.zeros((len(used), *shape), np.float32) for name, shape in row_shapes.items()}
    rows = np.flatnonzero(used) if used.any() else np.array([0])
    outputs = run({name: array[rows] for name, array in inputs.items()})
    return {name: _spread(array, rows, used) for name, array in outputs.items()}


def _spread(array: NDArray[Any], rows: NDArray[np.intp], used: NDArray[np.bool_]) -> NDArray[Any]:
    full = np.zeros((len(used), *array.shape[1:]), array.dtype)
    full[rows] = array
    full[~used] = 0
    return full
