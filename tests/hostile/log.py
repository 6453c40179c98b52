"""The proxy's log as a pipe, whose reader stops when a test wants it to."""

import asyncio
import contextlib
import os
import re
from pathlib import Path

PIECE = 1 << 16
WELL = re.compile(r" access .* (200|101) |\"status\":(200|101),")


class LogPipe:
    """A pipe with a name, and what was read from it; owned by the site."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.pipe"
        os.mkfifo(self.path)
        self._end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self._text = bytearray()

    def read(self) -> None:
        """Read from now on, as long as somebody writes."""
        asyncio.get_running_loop().add_reader(self._end, self._take)

    def stop(self) -> None:
        """Read nothing more; what is written waits in the pipe, and then in the process that writes."""
        asyncio.get_running_loop().remove_reader(self._end)

    def close(self) -> None:
        """Take what is left, and nothing more ever."""
        self.stop()
        with contextlib.suppress(BlockingIOError):
            while self._take():
                pass
        os.close(self._end)

    def _take(self) -> int:
        data = os.read(self._end, PIECE)
        self._text += data
        if not data:
            self.stop()
        return len(data)

    def has(self, text: bytes) -> bool:
        """Whether somebody wrote that."""
        return text in self._text

    def tail(self, count: int) -> str:
        """The last lines but those of requests that went well, none of them too long to be read."""
        lines = self._text.decode(errors="replace").splitlines()
        return "\n".join([line[:300] for line in lines if not WELL.search(line)][-count:])
