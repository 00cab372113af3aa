"""Inject every kind of fault into a stack of three servers, PostgreSQL and the gateway, and write a table.

    .venv/bin/python -m loadtest.drill --repeats 10 --out out/drill

Exit status 1 when an answer was wrong, a row was lost, or a fault did not heal in time. Needs root (mount namespaces).
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loadtest.drill.faults import FAULTS
from loadtest.drill.stack import Stack, running_stack
from loadtest.drill.traffic import Traffic

HEALED_S = 120.0


@dataclass
class Outcome:
    """Of all repeats of one fault. recovery_s: from its end until all are ready and callers are answered rightly."""

    fault: str
    recovery_s: list[float] = field(default_factory=list)
    right: int = 0
    wrong: int = 0
    failed: int = 0
    rows_lost: int = 0


def main() -> int:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in FAULTS if not options.only or any(text in name for text in options.only)]
    with tempfile.TemporaryDirectory(prefix="querylife-drill-") as name:
        folder = Path(name)
        with running_stack(options.repository, folder, options.servers) as stack:
            traffic = Traffic(stack)
            outcomes = {name: Outcome(name) for name in names}
            for _ in range(options.repeats):
                for fault in names:
                    _drill(stack, traffic, outcomes[fault])
                    print(json.dumps(asdict(outcomes[fault])), file=sys.stderr, flush=True)
            traffic.close()
        for log in folder.glob("*.log"):
            shutil.copy2(log, options.out)
    table = _table(list(outcomes.values()), traffic.errors)
    (options.out / "drill.md").write_text(table)
    print(table)
    bad = [o for o in outcomes.values() if o.wrong or o.rows_lost or max(o.recovery_s) > options.limit_s]
    return 1 if bad else 0


def _drill(stack: Stack, traffic: Traffic, outcome: Outcome) -> None:
    before = Counter(traffic.counts)
    FAULTS[outcome.fault](stack)
    lifted = time.monotonic()
    while time.monotonic() < lifted + HEALED_S:
        stack.keep()
        if not stack.unready() and traffic.all_right_since(lifted):
            break
        time.sleep(0.05)
    outcome.recovery_s.append(round(time.monotonic() - lifted, 2))
    outcome.rows_lost += stack.lost_rows()
    counted = Counter(traffic.counts)
    counted.subtract(before)
    for (_, verdict), number in counted.items():
        setattr(outcome, verdict, getattr(outcome, verdict) + number)


def _table(outcomes: list[Outcome], errors: Counter[str]) -> str:
    lines = [
        f"{len(outcomes)} kinds of faults; {len(os.sched_getaffinity(0))} processors, "
        f"load average at the end {os.getloadavg()[0]:.1f}.",
        "",
        "| fault | repeats | recovery, s: median | longest | right answers | failed | wrong | rows lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        times = sorted(o.recovery_s)
        figures = f"{times[len(times) // 2]:.1f} | {times[-1]:.1f} | {o.right} | {o.failed} | {o.wrong} | {o.rows_lost}"
        lines.append(f"| {o.fault} | {len(times)} | {figures} |")
    lines += ["", "Errors that callers saw:", ""]
    lines += [f"- {number} x `{text}`" for text, number in errors.most_common(12)]
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=10, help="of each fault (%(default)s)")
    parser.add_argument("--servers", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--limit-s", type=float, default=10.0, help="seconds for a fault to heal (%(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="faults whose name holds one of them")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/drill"), help="(%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
