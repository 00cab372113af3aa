"""The kill test against the real server, by hand: `python tests/jobs/kill_drill.py CATALOGUE --products 300`.

Describes a sample of a catalogue undisturbed; then again, on a fresh ledger and with fresh servers, while the job is
killed five times and the server three times. Prints what differs between the two outputs, and what the kills cost.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil
import pyarrow.parquet

from querylife.serving.supervisor.supervisor import free_port

SERVER = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "genfilt-server"
KILLS = ("job",) * 5 + ("server",) * 3


class Server:
    """genfilt-server on a port that it keeps."""

    def __init__(self) -> None:
        self.port = free_port("127.0.0.1", 0)
        self.start()

    def start(self) -> None:
        started = time.monotonic()
        command = [str(SERVER), "smollm2-135m", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready")
        self.ready_s = time.monotonic() - started

    def kill(self) -> int:
        """SIGKILL. Returns how many of its processes outlived it by 15 s."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.communicate()
        _, alive = psutil.wait_procs(family, timeout=15)
        for orphan in alive:
            orphan.kill()
        return len(alive)


def recorded(ledger: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT COUNT(*) FROM units").fetchone()[0])
    except sqlite3.OperationalError:  # not yet made
        return 0


def start_job(options: argparse.Namespace, out: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "querylife_jobs", "describe", str(options.catalogue), str(out)]
    command += ["--server", f"127.0.0.1:{port}", "--limit", str(options.products), "--max-in-flight", "16"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--products", type=int, default=300)
    options = parser.parse_args()
    choose = random.Random(1)
    kills = choose.sample(KILLS, len(KILLS))
    orphans = 0
    with tempfile.TemporaryDirectory() as folder:
        calm, disturbed = Path(folder, "calm.parquet"), Path(folder, "disturbed.parquet")
        server = Server()
        print(start_job(options, calm, server.port).communicate()[0], flush=True)
        orphans += server.kill()
        server.start()
        ledger = disturbed.with_name(disturbed.name + ".ledger.sqlite")
        job = start_job(options, disturbed, server.port)
        done = 0
        for killed in kills:
            wanted = recorded(ledger) + options.products // 12
            while recorded(ledger) < wanted and job.poll() is None:
                time.sleep(0.05)
            done += job.poll() is None
            if killed == "server":
                orphans += server.kill()
                server.start()
            else:
                os.kill(job.pid, signal.SIGKILL)
                job.communicate()
                job = start_job(options, disturbed, server.port)
        print(job.communicate()[0], flush=True)
        orphans += server.kill()
        first, second = (pyarrow.parquet.read_table(path).to_pylist() for path in (calm, disturbed))
    different = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    report = {"rows": len(first), "kills_in_time": done, "different_rows": len(different), "orphans": orphans}
    print(json.dumps(report), *different[:5], sep="\n")
    return 0 if not different and len(first) == len(second) else 1


if __name__ == "__main__":
    sys.exit(main())
