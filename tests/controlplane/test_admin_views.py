"""What the API shows of sessions, events and the configuration, and what it does not."""

import asyncio
import json
import os
import subprocess
from collections.abc import Collection
from time import monotonic, process_time, time
from typing import Any

import pytest

from proxy.affinity.backend import Backend
from proxy.affinity.evidence import Evidence
from proxy.affinity.health import Observation
from proxy.affinity.pins import join_pin
from proxy.affinity.session import Session
from proxy.app import App
from proxy.build import BUILD
from proxy.config import Config
from proxy.controlplane import session_views
from proxy.controlplane.admin_views import cpu_seconds
from proxy.controlplane.events import EventKind
from tests.controlplane.test_admin import TOKEN, Admin, bearer, run
from tests.dataplane.peers import WAIT, Peer, get

ID = "3f2a9c1e-0000-4000-8000-00000000000a"
PATHS = ["where/x", "sessions", "events", "stream", "overview", "config"]


def two(admin: Admin) -> tuple[Backend, Backend]:
    """Two backends that take sessions."""
    backends = [admin.fleet.add(name, "127.0.0.1", 1, now=0.0) for name in "ab"]
    for backend in backends:
        admin.fleet.observe(backend, Observation.ANSWERED, monotonic())
    return backends[0], backends[1]


async def ask(admin: Admin, path: str) -> tuple[int, Any]:
    """Status and body of a GET."""
    answer = await admin.ask(f"/api/{path}")
    return answer.status, json.loads(answer.body)


def test_where_a_session_is_and_why() -> None:
    """By its id or the beginning of it: backend, evidence, since when, its moves; never the whole id."""

    async def test(admin: Admin) -> None:
        a, b = two(admin)
        directory = admin.app.parts.router.directory
        directory.opened(directory.assign(ID, a, monotonic(), Evidence.CHAINLIT_COOKIE))
        for wanted in (ID, ID[:8], ID[:20]):
            status, told = await ask(admin, f"where/{wanted}")
            assert (status, told["kind"], told["backend"], told["holds"]) == (200, "session", "a", True)
            assert told["why"] == "it was placed there when it began"
            assert told["session"]["evidence"] == "chainlit_cookie"
            assert abs(told["session"]["since"] - time()) < 60
        admin.fleet.observe(a, Observation.REFUSED, monotonic())
        assert (await ask(admin, f"where/{ID}"))[1]["holds"] is False
        directory.assign(ID, b, monotonic(), Evidence.SESSION)
        answer = await admin.ask(f"/api/where/{ID}")
        told = json.loads(answer.body)
        assert (told["backend"], told["holds"]) == ("b", True)
        assert told["why"] == "it moved there from a, which was down"
        (move,) = told["session"]["moves"]
        assert (move["origin"], move["target"], move["reason"]) == ("a", "b", "down")
        assert ID.encode() not in answer.body

    run(test)


def test_where_a_sid_or_a_pin_leads() -> None:
    """A sid that is known leads to its session as well; a pin is enough for the backend."""

    async def test(admin: Admin) -> None:
        a, b = two(admin)
        router = admin.app.parts.router
        engine = router.engines.opened(b"sid1", a, monotonic())
        assert (await ask(admin, "where/sid1"))[1]["why"] == "a guess, until the client has named its session"
        router.engines.decide(engine, router.directory.assign(ID, a, monotonic()))
        for sid in (b"sid1", join_pin(a.token, b"sid1")):
            told = (await ask(admin, f"where/{sid.decode()}"))[1]
            assert (told["kind"], told["backend"], told["session"]["id"]) == ("sid", "a", ID[:8])
        for wanted, kind in ((b.token, "pin"), (join_pin(b.token, b"never-seen"), "sid")):
            told = (await ask(admin, f"where/{wanted.decode()}"))[1]
            assert (told["kind"], told["backend"], told["session"]) == (kind, "b", None)

    run(test)


def test_how_a_session_is_connected() -> None:
    """By websocket if it has one, else by polling, or not at all; and since when it is known here."""

    async def test(admin: Admin) -> None:
        a, b = two(admin)
        directory = admin.app.parts.router.directory
        session = directory.assign(ID, a, monotonic() - 60)
        assert session_status(session, ())["transport"] is None
        directory.opened(session)
        directory.assign(ID, b, monotonic())
        assert session_status(session, ())["transport"] == "polling"
        told = session_status(session, {session})
        assert told["transport"] == "websocket"
        assert 59 < told["since"] - told["began"] < 70
        (listed,) = (await ask(admin, "sessions?connected=true"))[1]["sessions"]
        assert listed["id"] == ID[:8]

    def session_status(session: Session, websockets: Collection[Session]) -> dict[str, Any]:
        return session_views.session_status(session, websockets).model_dump()

    run(test)


def test_where_nobody_knows() -> None:
    """404 for what is unknown or too short a beginning, 409 for the beginning of two."""

    async def test(admin: Admin) -> None:
        a, _ = two(admin)
        for session_id in (ID, ID[:-1] + "b"):
            admin.app.parts.router.directory.assign(session_id, a, monotonic())
        for wanted, status in (("unknown-thing", 404), (ID[:7], 404), (ID[:8], 409), (ID, 200)):
            assert (await ask(admin, f"where/{wanted}"))[0] == status

    run(test)


def test_sessions_come_by_pages() -> None:
    """All of them once, page by page, or those of one backend."""

    async def test(admin: Admin) -> None:
        a, b = two(admin)
        ids = [f"{number:08d}-session" for number in range(25)]
        for number, session_id in enumerate(ids):
            admin.app.parts.router.directory.assign(session_id, b if number % 5 else a, monotonic())
        seen = []
        for offset in range(0, 30, 10):
            _, page = await ask(admin, f"sessions?offset={offset}&limit=10")
            assert page["total"] == len(ids)
            seen += [session["id"] for session in page["sessions"]]
        assert sorted(seen) == [session_id[:8] for session_id in ids]
        _, page = await ask(admin, "sessions?backend=a")
        assert (page["total"], {session["backend"] for session in page["sessions"]}) == (5, {"a"})
        assert (await ask(admin, "sessions?backend=c")) == (
            404,
            {"detail": "there is no backend 'c'; there are: a, b"},
        )
        assert (await ask(admin, "sessions?connected=true"))[1] == {"total": 0, "sessions": []}
        for wrong in ("limit=0", "limit=501", "offset=-1"):
            assert (await ask(admin, f"sessions?{wrong}"))[0] == 422

    run(test)


def test_the_last_events() -> None:
    """All that are kept, or those after a number."""

    async def test(admin: Admin) -> None:
        admin.app.parts.events.record(EventKind.REPLICA, "ended with 1", "a", ("Traceback", "boom"))
        admin.app.parts.events.record(EventKind.RELOAD, "applied: log")
        first, second = (await ask(admin, "events"))[1]
        assert (second["id"], first["kind"], first["backend"]) == (first["id"] + 1, "replica", "a")
        assert first["lines"] == ["Traceback", "boom"]
        assert (await ask(admin, f"events?after={first['id']}"))[1] == [second]
        later = App(Config()).parts.events
        for _ in range(3):
            later.record(EventKind.RELOAD, "applied: log")
        assert len(later.after(second["id"])) == 3, "who followed this process misses some of the next"

    run(test)


async def follow(admin: Admin, query: str, *lines: bytes) -> Peer:
    """A stream whose head has come."""
    peer = Peer(*await asyncio.open_connection(*admin.address))
    peer.say(get(f"/api/stream{query}".encode(), *lines).replace(b"chat.test", admin.host))
    head = await peer.until(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"content-type: text/event-stream" in head.lower()
    return peer


def test_events_come_as_they_happen() -> None:
    """What is kept comes first, then each with its number; who comes back tells where it was."""

    async def test(admin: Admin) -> None:
        admin.app.parts.events.record(EventKind.RELOAD, "one")
        peer = await follow(admin, "")
        (number,) = (b"%d" % event.id for event in admin.app.parts.events.after(0))
        wanted = b'id: %b\nevent: event\ndata: {"id":%b,' % (number, number)
        assert wanted in await peer.until(b'"lines":[]}\n\n')
        admin.app.parts.events.record(EventKind.RELOAD, "two")
        assert b'"text":"two"' in await peer.until(b'"lines":[]}\n\n')
        peer.close()
        again = await follow(admin, "", b"Last-Event-ID: " + number)
        assert b'"text":"one"' not in await again.until(b'"text":"two"')
        again.close()

    run(test)


def test_the_state_comes_every_second() -> None:
    """With `state` there is an overview again and again, which is as it is then."""

    async def test(admin: Admin) -> None:
        a, _ = two(admin)
        peer = await follow(admin, "?state=true")
        told = await peer.until(b'"rollout":')
        assert b'"sessions":0' in told
        assert b'"build":"%b"' % BUILD.encode() in told
        admin.app.parts.router.directory.opened(admin.app.parts.router.directory.assign(ID, a, monotonic()))
        async with asyncio.timeout(WAIT):
            await peer.until(b'"name":"a"')
            assert b'"sessions":1' in await peer.until(b'"name":"b"')
        peer.close()

    run(test)


def test_followers_do_not_keep_the_proxy() -> None:
    """When it leaves, streams end and no other begins."""

    async def test(admin: Admin) -> None:
        peer = await follow(admin, "")
        admin.app.parts.events.close()
        await peer.until(b"0\r\n\r\n")
        peer.close()
        assert (await ask(admin, "stream"))[0] == 503

    run(test)


def test_the_configuration_is_shown_without_secrets() -> None:
    """All of it, with a mask for each secret."""

    async def test(admin: Admin) -> None:
        status, told = await ask(admin, "config")
        assert (status, told["timeouts"]["drain"]) == (200, 300)
        config = admin.app.config
        secret = {"admin": config.admin.model_validate({"token": "very-secret-token"})}
        admin.app.reloads.config = config.model_copy(update=secret)
        answer = await admin.ask("/api/config")
        assert b"very-secret" not in answer.body
        assert json.loads(answer.body)["admin"]["token"] == "***"

    run(test)


@pytest.mark.parametrize("path", PATHS)
def test_all_of_it_needs_the_token(path: str) -> None:
    """Nothing is shown to who does not have it."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask(f"/api/{path}")
        assert (answer.status, TOKEN.encode() in answer.body) == (401, False)
        if path not in {"stream", "where/x"}:
            assert (await admin.ask(f"/api/{path}", bearer(TOKEN))).status == 200

    run(test, token=TOKEN)


def test_the_time_of_a_process() -> None:
    """A local replica has the CPU time of its process, which grows; one that has ended has none."""
    before = cpu_seconds(os.getpid())
    assert before is not None
    assert abs(before - process_time()) < 1
    begun = process_time()
    while process_time() < begun + 0.1:
        pass
    after = cpu_seconds(os.getpid())
    assert after is not None
    assert after > before
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert cpu_seconds(ended.pid) is None
    assert cpu_seconds(None) is None
