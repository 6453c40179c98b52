"""`discovery.file`: a list of backends that a program writes.

It is looked at twice a second and read when it has been the same for one look, so that a file that is not
replaced at once is seldom read by halves. A list that is bad, empty or gone changes nothing; it is read again
now and then, for what is wrong may be a file that it names.
"""

import asyncio
import os
from pathlib import Path
from time import monotonic

from proxy.config import ConfigError, Problem
from proxy.config.found import found_backends
from proxy.controlplane.discovery.source import Backends, Found, Source

_INTERVAL = 0.5  # seconds between two looks at the file
_AGAIN = 5.0  # seconds until a bad list is read again


class FileSource(Source):
    """Watches one file."""

    def __init__(self, path: str, found: Found) -> None:
        super().__init__("file", found)
        self._path = path

    async def run(self) -> None:
        """Read the file now and after each change, until cancelled."""
        stamp = seen = await asyncio.to_thread(self._stamp)
        await self._read()
        read = monotonic()
        while True:
            await asyncio.sleep(_INTERVAL)
            before, seen = seen, await asyncio.to_thread(self._stamp)
            is_due = not self.is_current and monotonic() >= read + _AGAIN
            if seen == before and (seen != stamp or is_due):
                stamp = seen
                await self._read()
                read = monotonic()

    async def _read(self) -> None:
        try:
            backends = await asyncio.to_thread(self._load)
        except ConfigError as error:
            self.fail(*map(str, error.problems))
        else:
            self.tell(backends)

    def _load(self) -> Backends:
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
