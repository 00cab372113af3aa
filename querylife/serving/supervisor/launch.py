"""Runs as a script between the supervisor and tritonserver: `python launch.py PROGRAM ARGUMENT...`.

Asks the kernel to end the program when its supervisor is gone, then becomes the program. The kernel does not end what
the program started, and Triton's backends can wait for ever for a lock that it held: a watcher beside it, in a session
of its own, ends its process group when it is gone.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
WATCH = "--end-group-of"


def watched() -> None:
    """Start the watcher of this process, as nobody's child."""
    leader = os.getpid()
    handle = os.pidfd_open(leader)  # by this one: the leader may be gone before the watcher could
    starter = os.fork()
    if starter:
        os.waitpid(starter, 0)
        return
    os.set_inheritable(handle, True)
    null = os.open(os.devnull, os.O_RDWR)
    silent = [(os.POSIX_SPAWN_DUP2, null, stream) for stream in (0, 1, 2)]
    command = [sys.executable, "-ES", __file__, WATCH, str(leader), str(handle)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=silent, setsid=True)
    os._exit(0)


def end_group_of(leader: int, handle: int) -> None:
    """Wait until the leader of a process group is gone, and end the rest of the group. handle: the leader's pidfd."""
    select.select([handle], [], [])
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == WATCH:
        end_group_of(int(sys.argv[2]), int(sys.argv[3]))
        sys.exit(0)
    supervisor = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the kernel was asked
        sys.exit(1)
    watched()
    os.execv(sys.argv[1], sys.argv[1:])
