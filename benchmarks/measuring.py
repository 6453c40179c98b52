"""One measurement: the load generator is started, prepares, and works while the proxy's books are read.

And the stand-ins for Chainlit that every measurement needs.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from benchmarks.cpu import cpu_ns, resident_bytes
from benchmarks.page import ROOT

TIMEOUT = 60.0  # seconds for one measurement; most take about one
TOO_SLOW = 3  # the load generator's exit status when a stream could not keep its rate


class MeasureError(Exception):
    """A load generator that did not get its answers."""


class TooSlowError(MeasureError):
    """Work at a rate that the machine, or this proxy on it, does not carry."""


class Measured(NamedTuple):
    """What the load generator said, and what the process cost meanwhile."""

    said: list[float]  # units that were done, or what the work itself measured
    cpu_us: float  # of the whole work
    held_bytes: int  # more memory than before the preparation


class Process(Protocol):
    """Whose books are read."""

    @property
    def pid(self) -> int:
        """Its process; another one after a restart."""
        ...


class Nobody:
    """Where there is no proxy: this process stands for it."""

    pid = os.getpid()


def measure(
    process: Process, work: str, port: int, *numbers: int, between: Callable[[], None] | None = None
) -> Measured:
    """Does a work through the port, with what `benchmarks.load` takes, and reads the books of a process.

    `between` is called when all is prepared and nothing has begun.
    """
    before = resident_bytes(process.pid)
    command = [sys.executable, "-m", "benchmarks.load", work, str(port), *map(str, numbers)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        try:
            if load.stdout.readline() != "ready\n":
                raise MeasureError(load.communicate(timeout=TIMEOUT)[1].strip())
            held = resident_bytes(process.pid) - before
            if between is not None:
                between()
            began = cpu_ns(process.pid)
            out, err = load.communicate("go\n", timeout=TIMEOUT)
            cpu = cpu_ns(process.pid) - began
        except subprocess.TimeoutExpired:
            raise MeasureError(f"{work}: no end after {TIMEOUT:.0f} s") from None
        finally:
            load.kill()
    if load.returncode:
        raise (TooSlowError if load.returncode == TOO_SLOW else MeasureError)(err.strip())
    return Measured(json.loads(out), cpu / 1000, held)


@contextlib.contextmanager
def backends(count: int) -> Iterator[list[int]]:
    """The ports of as many stand-ins for Chainlit."""
    command = [sys.executable, "-m", "benchmarks.backend", str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
