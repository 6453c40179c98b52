"""Bodies far larger than memory: up, down, and down to a client that stops reading; the proxy hardly grows.

What is measured is the proxy's own process: the most that it had in memory while bodies passed, against what
it had after a first small request.
"""

import http.client
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.soak.film import BLOCK
from tests.soak.processes import MIB, Instance, memory, port_of, proxy_before
from tests.support.proxy_process import ProxyProcess

MOST = 8 * MIB
STALL = 3.0  # seconds in which a client reads nothing of a fast stream
PATIENCE = 120.0  # seconds for one block


@dataclass
class Transfer:
    """One of them: what passed, and by how much the proxy had grown at most."""

    name: str
    size: int  # bytes
    grown: int  # bytes
    seconds: float

    def __str__(self) -> str:
        speed = self.size / self.seconds / MIB
        grown = self.grown / MIB
        return f"{self.name}: {self.size / MIB:.0f} MiB, {speed:.0f} MiB/s, the proxy grew by {grown:.2f} MiB"

    def check(self) -> None:
        """AssertionError if it grew by too much."""
        assert self.grown < MOST, self


def run(folder: Path, size: int) -> list[Transfer]:
    """A body of `size` bytes up, one down, and one down with a pause in its middle."""
    with proxy_before(folder, [Instance(folder, "film", "film")], limits={"body": 0}) as proxy:
        _up(proxy, len(BLOCK))
        _down(proxy, len(BLOCK))
        at_rest = memory(proxy)
        found = []
        for name, work in (("upload", _up), ("download", _down), ("stalled download", _stalled)):
            started = time.monotonic()
            with _most(proxy) as most:
                work(proxy, size)
            found.append(Transfer(name, size, most() - at_rest, time.monotonic() - started))
        return found


@contextmanager
def _most(proxy: ProxyProcess) -> Iterator[Callable[[], int]]:
    """The most memory that the proxy had meanwhile, looked at all the time."""
    seen, ended = [memory(proxy)], threading.Event()

    def look() -> None:
        while not ended.wait(0.01):
            seen[0] = max(seen[0], memory(proxy))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: seen[0]
    finally:
        ended.set()
        looking.join()


def _blocks(size: int) -> Iterator[memoryview]:
    while size:
        part = memoryview(BLOCK)[:size]
        size -= len(part)
        yield part


def _checksum(size: int) -> int:
    checksum = 0
    for block in _blocks(size):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _connect(proxy: ProxyProcess) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port_of(proxy), timeout=PATIENCE)


def _up(proxy: ProxyProcess, size: int) -> None:
    connection = _connect(proxy)
    connection.request("POST", "/film", body=_blocks(size), headers={"Content-Length": str(size)})
    answer = connection.getresponse().read()
    connection.close()
    assert answer == b"%d %d" % (size, _checksum(size)), answer


def _down(proxy: ProxyProcess, size: int, pause: Callable[[socket.socket], None] | None = None) -> None:
    connection = _connect(proxy)
    connection.request("GET", f"/film?bytes={size}")
    sock, buffer, checksum, got = connection.sock, bytearray(1 << 20), 0, 0
    answer = connection.getresponse()
    assert answer.status == 200
    if pause is not None:
        pause(sock)
    while count := answer.readinto(buffer):
        checksum, got = zlib.crc32(memoryview(buffer)[:count], checksum), got + count
    connection.close()
    assert (got, checksum) == (size, _checksum(size))


def _stalled(proxy: ProxyProcess, size: int) -> None:
    """The pause is long enough for the instance to fill every buffer there is, were one without bounds."""
    _down(proxy, size, lambda _: time.sleep(STALL))
