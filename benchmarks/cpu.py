"""CPU time of other processes, in nanoseconds, from the scheduler's own books; and their memory.

Clock time on a shared machine is mostly other people's work; the time a process spent on a CPU is its own.
`/proc/PID/task/*/schedstat` counts it to the nanosecond (the clock ticks of `/proc/PID/stat` are 10 ms). A
process counts with all its descendants. A thread that has ended is no longer counted: start the work after
the process has settled.
"""

import os
from pathlib import Path

PROC = Path("/proc")


def cpu_ns(pid: int) -> int:
    """CPU time that the process, its threads and its descendants have used so far."""
    return sum(_own_ns(member) for member in family(pid))


def resident_bytes(pid: int) -> int:
    """Memory that the process and its descendants hold now."""
    pages = sum(int((_read(PROC / str(member) / "statm") or "0 0").split()[1]) for member in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """The process and its descendants that are alive now."""
    members = [pid]
    for member in members:
        for task in _tasks(member):
            members.extend(int(child) for child in _read(task / "children").split())
    return members


def _own_ns(pid: int) -> int:
    """The first field of schedstat: time spent on the CPU."""
    return sum(int((_read(task / "schedstat") or "0").split()[0]) for task in _tasks(pid))


def _tasks(pid: int) -> list[Path]:
    """The threads of a process; none of one that has ended."""
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except FileNotFoundError:
        return []


def _read(path: Path) -> str:
    """A file of /proc; empty if the thread ended in between."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
