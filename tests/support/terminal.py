"""A program on a terminal of its own, as a person has it before them."""

import codecs
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.support.proxy_process import ROOT

SIZE = (30, 160)  # lines and columns
WAIT = 40.0  # seconds
# `python -m proxy`; but where the tests run in the background of a shell, all that they start ignores Ctrl-C.
_PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from proxy.cli import main
main()
"""


OURS = (sys.executable, "-c", _PROGRAM)


class Terminal:
    """The program, by default a command of ours; it is ended with the block that it is opened for."""

    def __init__(
        self,
        *words: str,
        size: tuple[int, int] = SIZE,
        kind: str = "xterm",
        program: Sequence[str] = OURS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._screen, tty = pty.openpty()
        fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self._process = subprocess.Popen(
            [*program, *words],
            cwd=ROOT,
            env=os.environ | (env or {}) | {"TERM": kind},
            stdin=tty,
            stdout=tty,
            stderr=tty,
            start_new_session=True,
        )
        os.close(tty)
        self.text = ""  # all that was written
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a character may come in two pieces

    def read_until(self, told: Callable[[str], object]) -> str:
        """Read until that holds of all that was written; all of it."""
        assert self.tells(told, WAIT), f"nothing more came: {self.text}"
        return self.text

    def tells(self, told: Callable[[str], object], within: float) -> bool:
        """Read until that holds of all that was written, or for so many seconds; whether it does."""
        deadline = time.monotonic() + within
        while not told(self.text):
            if not self._is_readable(deadline):
                return False
            assert self._read(), f"it has ended: {self.text}"
        return True

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def press(self, keys: str) -> None:
        """What somebody types."""
        os.write(self._screen, keys.encode())

    def end(self) -> int:
        """Read on until it has ended; its exit code."""
        deadline = time.monotonic() + WAIT
        while self._is_readable(deadline) and self._read():
            pass
        return self._process.wait(WAIT)

    def _is_readable(self, deadline: float) -> bool:
        """Wait until then for something to read."""
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        return bool(ready)

    def _read(self) -> bool:
        try:
            piece = os.read(self._screen, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.text += self._decoder.decode(piece)
        return bool(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._screen)
