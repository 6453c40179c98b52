"""The CPU time of what is tested, where that runs on this machine: read in /proc, without asking anybody.

The process that listens on the tested port is the front. Those below it that listen too, as the replicas of
`run` do below their keepers, are the instances; where there are none, the front is the instance itself.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTENS = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Processes:
    """What was found; without a front nothing is known."""

    front: int | None
    instances: tuple[int, ...]


def find(port: int) -> Processes:
    """Who serves a port of this machine."""
    sockets = _listening()
    owners = {pid: held for pid in _pids() if (held := _sockets_of(pid) & sockets.keys())}
    fronts = [pid for pid, held in owners.items() if any(sockets[inode] == port for inode in held)]
    if not fronts:
        return Processes(None, ())
    front = min(fronts)
    below = tuple(sorted(pid for pid in owners if pid not in fronts and _is_below(pid, front)))
    return Processes(front, below or (front,))


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, in user mode and in the kernel (proc(5)); 0 if it has ended."""
    with suppress(OSError, ValueError, IndexError):
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _stat(pid: int) -> list[str]:
    return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    return []


def _listening() -> dict[str, int]:
    """Inodes of listening sockets, with their ports."""
    found = {}
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS:
                    found[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return found


def _sockets_of(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                link = str(entry.readlink())
                if link.startswith("socket:["):
                    found.add(link[8:-1])
    return found


def _is_below(pid: int, above: int) -> bool:
    with suppress(OSError, ValueError, IndexError):
        while pid > 1:
            pid = int(_stat(pid)[1])
            if pid == above:
                return True
    return False
