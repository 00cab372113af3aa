"""Runs as a script between the supervisor and tritonserver: `python launch.py PROGRAM ARGUMENT...`.

Asks the kernel to end the program when its supervisor is gone, then becomes the program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    supervisor = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the kernel was asked
        sys.exit(1)
    os.execv(sys.argv[1], sys.argv[1:])
