"""Runs a program that ends when the process that started this one ends, however that happens.

    python leash.py PARENT SIGNAL PROGRAM [ARGUMENT...]

The kernel sends SIGNAL when the parent is gone, SIGKILL of it included. This is a program of its own because code that
runs between fork and exec is not safe in a process with threads. Linux only; a program with file capabilities or a
set-user-ID bit loses the leash when it starts.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, signal: int, command: list[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
        sys.exit(f"cannot follow the parent's end: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended before the leash was on
        sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
