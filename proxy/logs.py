"""Logging: lines for people or for machines, on standard error; and the access log.

The access log is written by hand: one line per exchange costs a tenth of a `logging` record. Lines are
gathered and written together a few times a second, and at the end. Query strings, cookies and session ids
never reach a line. The streams that a serving process has in place never wait and never fail (`output`).
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from time import monotonic
from typing import Any, TextIO

from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence
from proxy.config.sections import LogSettings
from proxy.dataplane.record import Record, Stream
from proxy.output import Output
from proxy.wire.forwarding import HTTP2

_FLUSH_EVERY = 0.25  # seconds a line may wait
_FLUSH_AT = 200  # lines


def set_up(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send all log records to `stream`, or standard error, in the configured format."""
    handler = logging.StreamHandler(stream)
    if settings.format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    if isinstance(handler.stream, Output):
        handler.stream.notice = lambda text: handler.format(_warning(text))
    for chatty in ("asyncio", "uvicorn.error", "aiohttp"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _warning(text: str) -> logging.LogRecord:
    return logging.LogRecord("proxy", logging.WARNING, __file__, 0, text, (), None)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class AccessLog:
    """Writes a line for every exchange that ended; called by the data plane."""

    def __init__(self, settings: LogSettings, stream: TextIO | None = None) -> None:
        """`stream` takes the lines in place of standard error."""
        self._stream = sys.stderr if stream is None else stream
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._format: Callable[[Record, float], str] = (
            _json_line if settings.format == "json" else _console_line
        )

    def __call__(self, record: Record) -> None:
        """Log an exchange."""
        self._lines.append(self._format(record, time.time()))
        if len(self._lines) >= _FLUSH_AT:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_EVERY, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write("".join(lines))
            self._stream.flush()


_CONSOLE = "%s access  %s %s %d %s %s %.3fs %d/%dB%s\n"
# One JSON object, written by hand: only what a client or the configuration chose needs escaping. By one `%`,
# which costs a compiled line a third of what an f-string with formats does, and an interpreted one no more.
_JSON = (
    '{"time":"%s.%03dZ","level":"info","logger":"access","event":"%s","id":"%s","client":"%s","peer":"%s"'
    ',"protocol":"http/1.1",%s,"status":%d,%s,"seconds":%.6f,"first_byte":%.6f,"bytes_in":%d,"bytes_out":%d,"trace":%s,"error":%s%s}\n'
)
_JSON_HTTP2 = _JSON.replace("http/1.1", "h2")
_NOWHERE = '"backend":null,"evidence":null,"outcome":null'


def _console_line(record: Record, now: float) -> str:
    request, decision, tunnel = record.request, record.decision, record.tunnel
    head, known = request.head, request.known
    where, why = "-", "-"
    if decision is not None:
        where, why = decision.backend.name, _WHY[decision.evidence, decision.outcome]
    more = f" {record.error}" if record.error else ""
    if known.trace:
        more += f" trace={known.trace}"
    if tunnel is not None:
        frames_in, frames_out = tunnel.frames
        more = f" {frames_in}/{frames_out} frames, closed with {tunnel.ended_with or '-'}{more}"
        where = ">".join(tunnel.backends)
    return _CONSOLE % (
        _local_second(int(now)),
        head.method.decode(),
        head.path.decode(),
        record.status,
        where,
        why,
        monotonic() - request.started,
        record.bytes_in,
        record.bytes_out,
        more,
    )


def _json_line(record: Record, now: float) -> str:
    request, decision, tunnel, status = record.request, record.decision, record.tunnel, record.status
    head, known, error, second = request.head, request.known, record.error, int(now)
    origin, trace = known.origin, known.trace
    why = _NOWHERE
    if decision is not None:
        why = _why(decision.backend.name, decision.evidence, decision.outcome)
    return (_JSON_HTTP2 if origin.protocol == HTTP2 else _JSON) % (
        _second(second),
        int((now - second) * 1000),
        "tunnel" if status == 101 else "exchange",
        request.id.decode(),
        known.address,
        origin.peer or origin.address,
        _request(head.method, head.path),
        status,
        why,
        monotonic() - request.started,
        record.first_byte,
        record.bytes_in,
        record.bytes_out,
        json.dumps(trace) if trace else "null",
        json.dumps(error) if error else "null",
        "" if tunnel is None else _tunnel(tunnel),
    )


_WHY = {(e, o): f"{e.value}/{o.value}" for e in Evidence for o in Outcome}


def _tunnel(tunnel: Stream) -> str:
    frames_in, frames_out = tunnel.frames
    backends = "" if len(tunnel.backends) == 1 else f',"backends":{json.dumps(tunnel.backends)}'
    close = tunnel.ended_with or "null"
    return f',"frames_in":{frames_in},"frames_out":{frames_out},"close_code":{close}{backends}'


@lru_cache(maxsize=1024)
def _why(backend: str, evidence: Evidence, outcome: Outcome) -> str:
    return f'"backend":"{backend}","evidence":"{evidence.value}","outcome":"{outcome.value}"'


@lru_cache(maxsize=256)
def _request(method: bytes, path: bytes) -> str:
    return f'"method":"{method.decode()}","path":{json.dumps(path.decode("ascii"))}'


@lru_cache(maxsize=2)
def _local_second(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _timestamp(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds * 1000) % 1000:03d}Z"
