"""Put Debian's prometheus and promtool beside this Python: `python deploy/prometheus/unpack.py`. Needs no root.

Where apt cannot fetch the package (another system, no package lists, no network) it says so, and what needs the two
programs is skipped.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = ("prometheus", "promtool")
FETCH_S = 120.0


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            for command in (["apt-get", "download", "--quiet", "prometheus"], ["sh", "-c", "dpkg-deb -x *.deb ."]):
                subprocess.run(command, cwd=folder, check=True, timeout=FETCH_S, stdin=subprocess.DEVNULL)
            for program in PROGRAMS:
                target = Path(sys.executable).parent / program
                unfinished = target.with_suffix(".unfinished")
                shutil.copy2(folder / "usr" / "bin" / program, unfinished)
                unfinished.rename(target)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"no {' and '.join(PROGRAMS)}, want Debian's package prometheus: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
