"""An hour of the drill's stack without faults: every answer right, every row there, memory flat.

    .venv/bin/python -m loadtest.drill.soak --seconds 3600 --out out/soak

Three servers, PostgreSQL and the gateway with TLS and tokens; callers search, rerank, and embed queries and products
with pictures. An index job over the unchanged catalogue runs every ten minutes. Writes a table of memory (proportional
set size: shared pages count once). Exit status 1 when an answer was wrong or failed, a row was lost, or memory grew by
more than --growth from the middle to the end. Needs root (mount namespaces).
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from loadtest.drill.stack import Stack, running_stack
from loadtest.drill.traffic import Traffic
from loadtest.process_memory import family, megabytes

SAMPLE_S = 20.0
INDEX_S = 600.0

Memory = dict[str, float]  # part of the stack -> MB


def main() -> int:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="querylife-soak-") as folder,
        running_stack(options.repository, Path(folder), options.servers) as stack,
    ):
        traffic = Traffic(stack, with_pictures=True)
        samples = _watch(stack, traffic, options.seconds)
        traffic.close()
        lost = stack.lost_rows()
    growth = {part: growth_of([sample[part] for sample in samples]) for part in samples[0]}
    (options.out / "soak.md").write_text(_table(samples, growth, traffic, lost, options.seconds))
    print((options.out / "soak.md").read_text())
    answered_right = all(verdict == "right" for _, verdict in traffic.counts)
    return 0 if answered_right and not lost and max(growth.values()) <= options.growth else 1


def _watch(stack: Stack, traffic: Traffic, seconds: float) -> list[Memory]:
    """Memory every SAMPLE_S seconds; index jobs meanwhile."""
    samples: list[Memory] = []
    begun, indexed = time.monotonic(), 0.0
    while (passed := time.monotonic() - begun) < seconds:
        if passed >= indexed:
            stack.index().wait()
            indexed += INDEX_S
        samples.append(_memory(stack))
        answers = sum(traffic.counts.values())
        print(f"{passed:5.0f} s, {answers} answers, {samples[-1]}", file=sys.stderr, flush=True)
        time.sleep(SAMPLE_S)
    return samples


def _memory(stack: Stack) -> Memory:
    parts = {process.name: family(process.popen.pid) for process in (*stack.servers, stack.gateway)}
    parts["callers"] = [psutil.Process()]
    return {name: round(megabytes(processes), 1) for name, processes in parts.items()}


def growth_of(values: list[float]) -> float:
    """From the median of the fifth in the middle to that of the last fifth, as a share."""
    fifth = max(1, len(values) // 5)
    middle, end = values[2 * fifth : 3 * fifth] or values, values[-fifth:]
    return statistics.median(end) / statistics.median(middle) - 1


def _table(samples: list[Memory], growth: Memory, traffic: Traffic, lost: int, seconds: float) -> str:
    lines = [f"{seconds:.0f} s, {len(os.sched_getaffinity(0))} processors; {lost} rows lost.", ""]
    lines += ["| caller | right | wrong | failed |", "|---|---|---|---|"]
    for kind in traffic.kinds:
        counted = [traffic.counts[kind, verdict] for verdict in ("right", "wrong", "failed")]
        lines.append(f"| {kind} | {' | '.join(map(str, counted))} |")
    lines += ["", "| MB | " + " | ".join(samples[0]) + " |", "|---" * (len(samples[0]) + 1) + "|"]
    for tenth in range(10):
        sample = samples[len(samples) * tenth // 10]
        lines.append(f"| {tenth * 10}% | " + " | ".join(f"{value:.0f}" for value in sample.values()) + " |")
    lines.append("| end | " + " | ".join(f"{value:.0f}" for value in samples[-1].values()) + " |")
    lines.append("| from the middle to the end | " + " | ".join(f"{share:+.1%}" for share in growth.values()) + " |")
    lines += [f"\n- {number} x `{text}`" for text, number in traffic.errors.most_common(12)]
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=3600.0, help="(%(default)s)")
    parser.add_argument("--servers", type=int, default=3, help="(%(default)s)")
    parser.add_argument(
        "--growth", type=float, default=0.03, help="of memory, from the middle to the end (%(default)s)"
    )
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="(%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
