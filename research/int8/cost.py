"""What int8 towers cost beside float32 ones: CPU time per call, on one thread."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from querylife.contract import FUSION_TOWER, TEXT_TOWER, TOWERS, Model
from querylife_build.parity.backends import Array
from querylife_build.parity.reference import ReferenceOutputs

BATCHES = (1, 8, 32)
SECONDS = 2.0  # of measuring, per tower and batch
LEAST_ROUNDS = 3
TOKENS = 16  # of a query or a short title


def measure_cost(fp32: Mapping[Model, Path], int8: Mapping[Model, Path], reference: ReferenceOutputs) -> Iterator[str]:
    """One line per tower and batch. reference: whose sample's products are the inputs."""
    for tower in TOWERS:
        sessions = [_session(files[tower]) for files in (fp32, int8)]
        for batch in BATCHES:
            feed = _feed(tower, reference, batch)
            wide, narrow = _in_turns(sessions, feed)
            costs = f"fp32 {wide * 1e3:7.1f} ms, int8 {narrow * 1e3:7.1f} ms of CPU, {wide / narrow:.2f} times as cheap"
            yield f"cost     {tower.name:13} batch {batch:2}: {costs}"


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _feed(tower: Model, reference: ReferenceOutputs, batch: int) -> dict[str, Array]:
    """The sample's first products that have every part; texts cut to TOKENS, as short titles have them."""
    whole = np.flatnonzero(reference.sample.image_used.numpy()[:, 0])[:batch]
    feed = {tensor.name: array[whole] for tensor, array in zip(tower.inputs, reference.inputs(tower), strict=True)}
    if tower in (TEXT_TOWER, FUSION_TOWER):
        cut = ("token_ids", "token_roles", "text_states")
        feed |= {name: feed[name][:, :TOKENS] for name in cut if name in feed}
    return feed


def _in_turns(sessions: list[onnxruntime.InferenceSession], feed: dict[str, Array]) -> tuple[float, float]:
    """Cheapest run of each in CPU seconds, which a busy machine distorts least; taken in turns."""
    times_of: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or len(times_of[0]) < LEAST_ROUNDS:
        for session, times in zip(sessions, times_of, strict=True):
            started = time.process_time()
            session.run(None, feed)
            times.append(time.process_time() - started)
    return min(times_of[0]), min(times_of[1])
