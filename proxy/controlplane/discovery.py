"""Sources of backends that come and go while the proxy runs. None touches the fleet: `members` does.

`FileSource` reads a list that a program writes. It is looked at twice a second and read when it has been
the same for one look, so that a file that is not replaced at once is seldom read by halves. A file that is
bad, empty or gone changes nothing: the last good list stays.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from proxy.config import BackendSettings, ConfigError, Problem
from proxy.config.found import found_backends

log = logging.getLogger("proxy.discovery")

_LOOK = 0.5  # seconds between two looks at the file

Found = Callable[[tuple[BackendSettings, ...]], None]


class FileSource:
    """Watches one file; created by the app's Discovery."""

    name = "file"

    def __init__(self, path: str, found: Found) -> None:
        """`found(backends)` is told each good list that differs from the one before."""
        self._path = path
        self._found = found
        self.asked = asyncio.Event()  # set when the file was read once, whatever it held
        self.updates = 0  # good lists that differed
        self.failures = 0  # lists that could not be used
        self.last: tuple[BackendSettings, ...] = ()  # the last good list

    async def run(self) -> None:
        """Read the file now and after each change, until cancelled."""
        stamp = seen = await asyncio.to_thread(self._stamp)
        await self._read()
        while True:
            await asyncio.sleep(_LOOK)
            before, seen = seen, await asyncio.to_thread(self._stamp)
            if seen == before and seen != stamp:
                stamp = seen
                await self._read()

    async def _read(self) -> None:
        try:
            backends = await asyncio.to_thread(self._load)
        except ConfigError as error:
            self.failures += 1
            log.error("the list of backends is not used, the last good one stays:")  # noqa: TRY400 - expected
            for problem in error.problems:
                log.error("%s", problem)  # noqa: TRY400 - as above
        else:
            if backends != self.last:
                self.updates += 1
                self.last = backends
                self._found(backends)
        self.asked.set()

    def _load(self) -> tuple[BackendSettings, ...]:
        try:
            data = Path(self._path).read_bytes()
        except OSError as error:
            problem = Problem(self._path, None, "", f"cannot be read: {error.strerror}")
            raise ConfigError([problem]) from None
        return found_backends(data, self._path)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - twice a second
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def __repr__(self) -> str:
        return f"<FileSource {self._path} {len(self.last)} backends>"
