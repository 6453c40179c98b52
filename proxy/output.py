"""Standard output and standard error of a process that serves: writing there never waits and never fails.

Whoever reads them may stop (a logging driver, `less`, a paused terminal), go away, or be a disk that is full.
So texts go to a bounded queue, and a thread of its own writes them. Where the queue is full, or the system
refuses a text, whole lines are dropped and counted, and one line says how many as soon as something can be
written again. With a reader that reads, nothing is lost and the order stays.

The thread writes to the descriptor itself: blocked for ever it holds no lock that the end of Python needs.
`logging.handlers.QueueListener` does not fit: its queue has no bound in bytes, and it ends with its reader.
"""

import atexit
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TextIO, cast

_MAX_BYTES = 4 << 20  # twenty seconds of a busy access log; what is being written may be as much again
_MAX_LINES = 50_000  # each costs some 50 bytes more than its text
_PAUSE = 0.02  # seconds between two writes: each takes the interpreter from the event loop for a moment
_LAST_WORDS = 1.0  # seconds that readers have at the end of the process for what is still queued


class Output(io.TextIOBase):
    """A text stream in place of one of Python's; made by `take_over`, once for each file. Thread-safe."""

    encoding: str = "utf-8"
    errors: str = "backslashreplace"  # no character is a reason to fail

    def __init__(
        self,
        descriptor: int,
        encoding: str = "utf-8",
        *,
        max_bytes: int = _MAX_BYTES,
        max_lines: int = _MAX_LINES,
    ) -> None:
        """`descriptor` stays open as long as the process lives."""
        self._descriptor = descriptor
        self.encoding = encoding
        self._max_bytes, self._max_lines = max_bytes, max_lines
        self._changed = threading.Condition()  # reentrant: the garbage collector may warn at any time
        self._queue: list[bytes | int] = []  # texts, and how many lines were dropped between them
        self._bytes = self._lines = 0  # of the queue
        self._writing = False  # set while the thread has taken something
        self._inside_line = False  # whether what was written last did not end its line
        self.dropped = 0  # lines, since the start
        self.notice: Callable[[str], str] = str  # puts a sentence in the form of the other lines
        threading.Thread(target=self._run, name=f"output-{descriptor}", daemon=True).start()

    def write(self, text: str) -> int:
        """Queue a text, or drop it."""
        data = text.encode(self.encoding, self.errors)
        lines = data.count(b"\n")
        with self._changed:
            if self._bytes + len(data) <= self._max_bytes and self._lines + lines <= self._max_lines:
                self._queue.append(data)
                self._bytes += len(data)
                self._lines += lines
            else:
                self.dropped += lines
                last = self._queue[-1] if self._queue else None
                if isinstance(last, int):
                    self._queue[-1] = last + lines
                else:
                    self._queue.append(lines)
                    self._lines += 1  # its notice
            self._changed.notify_all()
        return len(text)

    def finish(self, within: float) -> bool:
        """Wait at most `within` seconds for the queue to be written; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._writing, within)

    def writable(self) -> bool:
        """As io.IOBase."""
        return True

    def fileno(self) -> int:
        """As io.IOBase."""
        return self._descriptor

    def isatty(self) -> bool:
        """As io.IOBase."""
        return os.isatty(self._descriptor)

    def _run(self) -> None:
        untold = 0  # lines that were dropped, and no notice of it was written
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                self._writing = True
                taken, self._queue = self._queue, []
                self._bytes = self._lines = 0
            lost = 0
            for item in _joined(taken):
                if isinstance(item, int):
                    untold += item
                elif untold and self._write(self._told(untold)):
                    lost += item.count(b"\n")
                    untold += item.count(b"\n")
                else:
                    untold = self._write(item)
                    lost += untold
            if untold and not lost and self._write(self._told(untold)) == 0:
                untold = 0
            with self._changed:
                self.dropped += lost
                self._writing = False
                self._changed.notify_all()
            time.sleep(_PAUSE)

    def _told(self, lines: int) -> bytes:
        begin = "\n" if self._inside_line else ""
        text = f"{lines} lines were dropped here: nobody read them, or they could not be written"
        return f"{begin}{self.notice(text)}\n".encode(self.encoding, self.errors)

    def _write(self, data: bytes) -> int:
        """Write to the descriptor; how many lines were not."""
        rest = memoryview(data)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:  # another process has made the file that we share non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return bytes(rest).count(b"\n")
            else:
                self._inside_line = rest[written - 1] != ord("\n")
                rest = rest[written:]
        return 0

    def __repr__(self) -> str:
        return f"<Output {self._descriptor} {self._bytes} bytes queued, {self.dropped} lines dropped>"


def _joined(items: list[bytes | int]) -> Iterator[bytes | int]:
    """The same with texts that follow each other as one."""
    for is_text, group in groupby(items, key=lambda item: isinstance(item, bytes)):
        if is_text:
            yield b"".join(item for item in group if isinstance(item, bytes))
        else:
            yield from group


def take_over() -> None:
    """Have all that this process writes from now on, by whatever part, go through queues."""
    stdout, stderr = _descriptor(sys.stdout), _descriptor(sys.stderr)
    if stdout is None or stderr is None:  # a test has put something else in their place
        return
    output = Output(stderr, _encoding(sys.stderr))
    is_one = os.path.sameopenfile(stdout, stderr)  # then one queue keeps the order of both
    sys.stdout = cast("TextIO", output if is_one else Output(stdout, _encoding(sys.stdout)))
    sys.stderr = cast("TextIO", output)
    atexit.register(_finish)


def outputs() -> set[Output]:
    """Those that are in place."""
    return {stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Output)}


def lines_dropped() -> int:
    """How many lines were dropped since the start."""
    return sum(output.dropped for output in outputs())


def _encoding(stream: TextIO | None) -> str:
    return stream.encoding if stream else Output.encoding


def _descriptor(stream: TextIO | None) -> int | None:
    """The descriptor of one of Python's streams; None: it has none."""
    if stream is None:  # it was closed when the process began: the number may be anybody's by now
        return os.open(os.devnull, os.O_WRONLY)
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _finish() -> None:
    end = time.monotonic() + _LAST_WORDS
    for output in outputs():
        output.finish(max(0.0, end - time.monotonic()))
