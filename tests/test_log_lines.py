"""The lines of the access log, byte for byte, whatever an exchange was."""

import json
from dataclasses import dataclass, field
from itertools import product
from types import SimpleNamespace
from typing import cast

import pytest

from proxy import logs
from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence
from proxy.dataplane.record import Record

NOW = 1_790_000_000.0
STARTED = 100.0
TIMES = (0.0, 0.0000004, 0.0000005, 0.9999996, 1.25, 12345.678901234, 1e9)  # seconds
ERRORS = ("", 'a "quote" \\ %s %d {x}', "\u00e9\u0130\u2028\x00\n")
TRACES = ("", "4bf92f3577b34da6a3ce929d0e0e4736")


@dataclass
class Stream:
    """A tunnel that has ended."""

    backends: list[str] = field(default_factory=lambda: ["a"])
    frames: tuple[int, int] = (3, 1 << 40)
    ended_with: int | None = 1006


STREAMS = (None, Stream(), Stream(["a", "b%s", "c"], (0, 0), None))


def record(seconds: float, error: str, trace: str, tunnel: Stream | None) -> Record:
    """An exchange of this kind; what else it is depends on these."""
    known = SimpleNamespace(
        address="2001:db8::%1" if error else "192.0.2.1",
        trace=trace,
        origin=SimpleNamespace(
            peer="10.0.0.1" if trace else "", address="192.0.2.1", protocol="h2" if error else "http/1.1"
        ),
    )
    head = SimpleNamespace(method=b"GET", path=b'/a%22b/%s"{}\\' if error else b"/")
    decision = SimpleNamespace(
        backend=SimpleNamespace(name="b%d{}"), evidence=Evidence.SID, outcome=Outcome.PINNED
    )
    made = SimpleNamespace(
        request=SimpleNamespace(head=head, known=known, id=b"%x-1", started=STARTED - seconds),
        decision=decision if not trace or tunnel else None,
        tunnel=tunnel,
        status=101 if tunnel else 0 if error else 200,
        first_byte=seconds / 3,
        bytes_in=0 if trace else 1 << 50,
        bytes_out=int(seconds),
        error=error,
    )
    return cast("Record", made)


def json_line(record: Record, now: float) -> str:
    """What a line for machines is."""
    request, decision, tunnel = record.request, record.decision, record.tunnel
    head, known, status = request.head, request.known, record.status
    why = '"backend":null,"evidence":null,"outcome":null'
    if decision is not None:
        why = f'"backend":"{decision.backend.name}","evidence":"{decision.evidence}"'
        why += f',"outcome":"{decision.outcome}"'
    more = ""
    if tunnel is not None:
        more = f',"frames_in":{tunnel.frames[0]},"frames_out":{tunnel.frames[1]}'
        more += f',"close_code":{tunnel.ended_with or "null"}'
        if len(tunnel.backends) > 1:
            more += f',"backends":{json.dumps(tunnel.backends)}'
    return (
        f'{{"time":"{logs._second(int(now))}.{int((now - int(now)) * 1000):03d}Z","level":"info"'
        f',"logger":"access","event":"{"tunnel" if status == 101 else "exchange"}"'
        f',"id":"{request.id.decode()}"'
        f',"client":"{known.address}","peer":"{known.origin.peer or known.origin.address}"'
        f',"protocol":"{known.origin.protocol}"'
        f',"method":"{head.method.decode()}","path":{json.dumps(head.path.decode())},"status":{status}'
        f',{why},"seconds":{STARTED - request.started:.6f},"first_byte":{record.first_byte:.6f}'
        f',"bytes_in":{record.bytes_in},"bytes_out":{record.bytes_out}'
        f',"trace":{json.dumps(known.trace) if known.trace else "null"}'
        f',"error":{json.dumps(record.error) if record.error else "null"}{more}}}\n'
    )


def console_line(record: Record, now: float) -> str:
    """What a line for people is."""
    request, decision, tunnel = record.request, record.decision, record.tunnel
    where, why = "-", "-"
    if decision is not None:
        where, why = decision.backend.name, f"{decision.evidence}/{decision.outcome}"
    more = f" {record.error}" if record.error else ""
    if request.known.trace:
        more += f" trace={request.known.trace}"
    if tunnel is not None:
        frames_in, frames_out = tunnel.frames
        more = f" {frames_in}/{frames_out} frames, closed with {tunnel.ended_with or '-'}{more}"
        where = ">".join(tunnel.backends)
    return (
        f"{logs._local_second(int(now))} access  {request.head.method.decode()} {request.head.path.decode()}"
        f" {record.status} {where} {why} {STARTED - request.started:.3f}s"
        f" {record.bytes_in}/{record.bytes_out}B{more}\n"
    )


@pytest.mark.interpreted
@pytest.mark.parametrize("fraction", [0.0, 0.0004, 0.0009999, 0.5, 0.99999])
def test_lines_are_what_they_were(fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, errors and paths may hold whatever formats give a meaning to; numbers any size."""
    monkeypatch.setattr(logs, "monotonic", lambda: STARTED)
    for case in product(TIMES, ERRORS, TRACES, STREAMS):
        made = record(*case)
        assert logs._json_line(made, NOW + fraction) == json_line(made, NOW + fraction)
        assert logs._console_line(made, NOW + fraction) == console_line(made, NOW + fraction)
        json.loads(logs._json_line(made, NOW + fraction))
