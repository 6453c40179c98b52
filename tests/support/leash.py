"""Runs a command that cannot outlive the process that started it.

`python leash.py PARENT COMMAND...` asks the kernel to kill this process when its parent dies, and
becomes the command. The request survives `exec`, so it also holds when the test run is killed with -9.
Only Linux knows it; elsewhere the command just runs.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
SIGKILL = 9

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() == int(parent):  # else it died before the request was made
        os.execvp(command[0], command)
