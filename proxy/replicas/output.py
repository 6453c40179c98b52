"""A replica's output, from bytes to prefixed lines.

A line may be of any length: a very long one is passed on in pieces, so memory stays bounded. The last lines
are remembered for the event that tells of a replica's end. During the first start all replicas but one are
held back: an app that does not import then shows its traceback once and not once per replica.
"""

from collections import deque
from collections.abc import Callable, Iterator

MAX_LINE = 65536  # bytes; longer ones are cut into pieces: more than any log line, little enough to hold
LAST_LINES = 20  # how much of the output an event carries: a traceback's useful end
MAX_HELD = 1000  # lines held back per replica; older ones are dropped


class LineSplitter:
    """Cuts a stream of bytes into lines without their ends."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """Yields the lines that `data` completes, and full pieces of one that is too long."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._rest += line
            yield from self._overlong()
            yield self._take(len(self._rest))
        self._rest += rest
        yield from self._overlong()

    def flush(self) -> Iterator[str]:
        """Yields what has no line end, when the stream is over."""
        if self._rest:
            yield self._take(len(self._rest))

    def _overlong(self) -> Iterator[str]:
        while len(self._rest) > self._max_line:
            yield self._take(self._max_line)

    def _take(self, count: int) -> str:
        taken = self._rest[:count]
        del self._rest[:count]
        return taken.decode(errors="replace").rstrip("\r")


class ReplicaLog:
    """The lines of one replica on their way to the owner's `output`; made by the supervisor."""

    def __init__(self, prefix: str, output: Callable[[str], None], *, held: bool = False) -> None:
        self._prefix = prefix
        self._output = output
        self._held: deque[str] | None = deque(maxlen=MAX_HELD) if held else None
        self._muted = False
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def __repr__(self) -> str:
        state = "muted" if self._muted else "open" if self._held is None else f"{len(self._held)} lines held"
        return f"<ReplicaLog {self._prefix!r} {state}>"

    @property
    def last(self) -> tuple[str, ...]:
        """The last lines, without prefix, oldest first."""
        return tuple(self._last)

    def write(self, line: str) -> None:
        """Passes one line on, or keeps it while lines are held back."""
        self._last.append(line)
        if self._held is not None:
            self._held.append(line)
        elif not self._muted:
            self._output(self._prefix + line)

    def release(self) -> None:
        """Passes on what was held back; from now on lines pass at once."""
        held, self._held = self._held, None
        if not self._muted:
            for line in held or ():
                self._output(self._prefix + line)

    def mute(self) -> None:
        """Nothing is passed on any more."""
        self._muted = True
