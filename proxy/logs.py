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


def _console_line(record: Record, now: float) -> str:
    head, decision = record.request.head, record.decision
    where, why = "-", "-"
    if decision is not None:
        where, why = decision.backend.name, _WHY[decision.evidence, decision.outcome]
    more = f" {record.error}" if record.error else ""
    if record.request.known.trace:
        more += f" trace={record.request.known.trace}"
    if record.tunnel is not None:
        frames_in, frames_out = record.tunnel.frames
        more = f" {frames_in}/{frames_out} frames, closed with {record.tunnel.ended_with or '-'}{more}"
        where = ">".join(record.tunnel.backends)
    return (
        f"{_local_second(int(now))} access  {head.method.decode()} {head.path.decode()}"
        f" {record.status} {where} {why} {monotonic() - record.request.started:.3f}s"
        f" {record.bytes_in}/{record.bytes_out}B{more}\n"
    )


def _json_line(record: Record, now: float) -> str:
    """One JSON object, written by hand: only what a client or the configuration chose needs escaping."""
    request, decision, status = record.request, record.decision, record.status
    head, known = request.head, request.known
    why = '"backend":null,"evidence":null,"outcome":null'
    if decision is not None:
        why = _why(decision.backend.name, decision.evidence, decision.outcome)
    second, tunnel = int(now), record.tunnel
    return (
        f'{{"time":"{_second(second)}.{int((now - second) * 1000):03d}Z","level":"info","logger":"access"'
        f',"event":"{"tunnel" if status == 101 else "exchange"}","id":"{request.id.decode()}"'
        f',"client":"{known.address}","peer":"{known.origin.peer or known.origin.address}"'
        f',{_request(head.method, head.path)},"status":{status}'
        f',{why},"seconds":{monotonic() - request.started:.6f},"first_byte":{record.first_byte:.6f}'
        f',"bytes_in":{record.bytes_in},"bytes_out":{record.bytes_out}'
        f',"trace":{json.dumps(known.trace) if known.trace else "null"}'
        f',"error":{json.dumps(record.error) if record.error else "null"}'
        f"{'' if tunnel is None else _tunnel(tunnel)}}}\n"
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
