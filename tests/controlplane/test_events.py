"""The log of events: what it keeps, and who is told when."""

import asyncio
import logging
from functools import partial

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from proxy.app import App
from proxy.config import Config
from proxy.controlplane.events import EventKind, EventLog
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT


def test_the_log_is_bounded() -> None:
    """The newest stay, with their numbers."""
    log = EventLog(size=3)
    for number in range(10):
        log.record(EventKind.RELOAD, str(number))
    assert [(event.id, event.text) for event in log.after(0)] == [(8, "7"), (9, "8"), (10, "9")]


@pytest.mark.parametrize(("seen", "ids"), [(0, [1, 2, 3]), (1, [2, 3]), (3, []), (4, [1, 2, 3])])
def test_what_is_newer(seen: int, ids: list[int]) -> None:
    """Those after a number; after one that was never given, which an earlier process gave, all."""
    log = EventLog()
    for _ in range(3):
        log.record(EventKind.RELOAD, "x")
    assert [event.id for event in log.after(seen)] == ids


def test_news_wake_all_who_wait() -> None:
    """An event and the call to go end every wait at once."""

    async def main() -> None:
        log = EventLog()
        for tell in (partial(log.record, EventKind.RELOAD, "x"), log.hang_up, log.close):
            waiting = [asyncio.create_task(log.news(10 * WAIT)) for _ in range(3)]
            await asyncio.sleep(0)
            tell()
            async with asyncio.timeout(WAIT):
                await asyncio.gather(*waiting)
        assert (log.rounds, log.closed) == (2, True)

    run_loop(main())


def test_the_fleet_tells() -> None:
    """Verdicts and wishes are events; one that takes sessions along says how many."""
    app = App(Config())
    backend = app.parts.fleet.add("a", "127.0.0.1", 1, now=0.0)
    app.parts.fleet.observe(backend, Observation.ANSWERED, 0.0)
    app.parts.fleet.set_admin_state(backend, AdminState.DRAIN)
    app.parts.fleet.observe(backend, Observation.REFUSED, 1.0, "connection refused")
    app.parts.fleet.observe(backend, Observation.ANSWERED, 2.0)
    app.parts.fleet.observe(backend, Observation.ANSWERED, 2.0)
    for session_id in ("s", "t"):
        app.parts.router.directory.opened(app.parts.router.directory.assign(session_id, backend, 2.0))
    app.parts.fleet.observe(backend, Observation.REFUSED, 3.0, "connection refused")
    assert [(event.kind.value, event.backend, event.text) for event in app.parts.events.after(0)] == [
        ("backend", "a", "is healthy"),
        ("backend", "a", "is set to drain"),
        ("backend", "", "no backend takes sessions"),
        ("backend", "a", "is down: connection refused"),
        ("backend", "a", "is healthy"),
        ("backend", "a", "is down: connection refused"),
        ("failover", "a", "is lost with 2 sessions"),
    ]


def test_who_was_never_there_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Each backend's first verdict is told with its reason, then once that nobody takes sessions.

    What is bad is a warning, the way back is none.
    """
    app = App(Config())
    caplog.set_level(logging.INFO, "proxy")
    a, b = (app.parts.fleet.add(name, "127.0.0.1", 1, now=0.0) for name in "ab")
    for now in (0.0, 1.0):
        app.parts.fleet.observe(a, Observation.REFUSED, now, "nobody listens")
        app.parts.fleet.observe(b, Observation.SILENT, now, "the name b does not resolve")
    app.parts.fleet.observe(a, Observation.ANSWERED, 2.0)
    app.parts.fleet.observe(a, Observation.REFUSED, 3.0, "nobody listens")
    told = [
        ("WARNING", "a", "is down: nobody listens"),
        ("WARNING", "b", "is degraded: the name b does not resolve"),
        ("WARNING", "", "no backend takes sessions"),
        ("INFO", "a", "is healthy"),
        ("WARNING", "a", "is down: nobody listens"),
        ("WARNING", "", "no backend takes sessions"),
    ]
    assert [(event.backend, event.text) for event in app.parts.events.after(0)] == [each[1:] for each in told]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (level, f"backend {name} {text}" if name else text) for level, name, text in told
    ]


def test_a_reload_tells() -> None:
    """A reload is an event, with what changed."""

    async def main() -> None:
        app = App(Config())
        await app.reloads.reload()
        assert [(event.kind, event.text) for event in app.parts.events.after(0)] == [
            (EventKind.RELOAD, "applied: nothing changed")
        ]

    run_loop(main())
