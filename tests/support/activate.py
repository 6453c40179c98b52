"""Starts a program as systemd starts one with sockets: `activate.py FD,FD... NAMES PROGRAM ARGUMENT...`.

The descriptors become 3 and those that follow, `LISTEN_PID` is the process itself, and the program takes its
place (sd_listen_fds(3)). Whoever started this keeps the sockets open, as systemd does.
"""

import fcntl
import os
import sys

FIRST = 3


def main() -> None:
    """Never returns."""
    given, names, *command = sys.argv[1:]
    # First out of the way, or one would overwrite another.
    away = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in given.split(",")]
    for number, descriptor in enumerate(away, FIRST):
        os.dup2(descriptor, number)
        os.close(descriptor)
    told = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(away)), "LISTEN_FDNAMES": names}
    os.execvpe(command[0], command, os.environ | told)


if __name__ == "__main__":
    main()
