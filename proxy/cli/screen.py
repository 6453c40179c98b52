"""What is shown on a terminal: bars, tables, and a picture that is drawn again and again.

They are written by hand: a library for terminals would weigh more than the whole command.
"""

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO

import click

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor
_HOME, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


def can_draw(stream: IO[str]) -> bool:
    """Whether it is a terminal on which a line can be written again; `dumb` is that of editors and logs."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def bar(part: float, width: int) -> str:
    """A bar of so many characters, filled by a part between 0 and 1."""
    filled = round(part * width)
    return "#" * filled + "." * (width - filled)


def cut(text: str, width: int) -> str:
    """A text of so many characters at most; what was left out is seen."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "~"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns, the first row being their titles."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(f"{value:<{width}}" for value, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def ago(seconds: float) -> str:
    """How long something has lasted, in its largest unit: 12s, 3m, 5h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def moment(at: float) -> str:
    """A unix time as people read it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


class Screen:
    """A terminal while a picture is on it; without a terminal pictures are printed one below the other."""

    def __init__(self) -> None:
        # Where keys are read; None: nobody types.
        self.keys = sys.stdin.fileno() if sys.stdin.isatty() and can_draw(sys.stdout) else None

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines as they are now; COLUMNS, maybe of another time, counts without a terminal."""
        with suppress(OSError):
            found = os.get_terminal_size(sys.stdout.fileno())
            if found.columns and found.lines:
                return found
        return shutil.get_terminal_size()

    def show(self, picture: str) -> None:
        """Draw it in place of the one before."""
        if not can_draw(sys.stdout):
            click.echo(picture)
            return
        lines = (line + _REST_OF_LINE for line in picture.split("\n"))
        click.echo(_HOME + "\n".join(lines) + _REST, nl=False)

    def wait(self, seconds: float) -> bool:
        """Wait for the next picture; return whether `q` was pressed meanwhile."""
        end = time.monotonic() + seconds
        while self.keys is not None and (left := end - time.monotonic()) > 0:
            if select.select([self.keys], [], [], left)[0]:
                pressed = os.read(self.keys, 64)
                if b"q" in pressed.lower():
                    return True
                if not pressed:
                    self.keys = None  # nobody types any more
        time.sleep(max(0.0, end - time.monotonic()))
        return False


@contextmanager
def screen() -> Iterator[Screen]:
    """The terminal's other screen for the block; what was on it before is there again afterwards."""
    shown = Screen()
    if not can_draw(sys.stdout):
        yield shown
        return
    keys = shown.keys
    before = None if keys is None else termios.tcgetattr(keys)

    def enter() -> None:
        if keys is not None:
            tty.setcbreak(keys)
        click.echo(_ENTER, nl=False)

    def leave() -> None:
        click.echo(_LEAVE, nl=False)
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)

    def suspend(_number: int, _frame: FrameType | None) -> None:
        leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter()  # when it was sent SIGCONT

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    handlers = {signal.SIGTSTP: suspend, signal.SIGTERM: end, signal.SIGHUP: end}
    replaced = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    enter()
    try:
        yield shown
    finally:
        leave()
        for number, handler in replaced.items():
            signal.signal(number, handler)
