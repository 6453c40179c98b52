"""How connections in HTTP/2 end in order, and what chats, the log and the metrics make of them."""

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import net
from proxy.config import Address
from proxy.config.sections import LogSettings
from proxy.dataplane.http2 import Http2Connection
from proxy.dataplane.record import Record
from proxy.logs import AccessLog
from proxy.parts import certificates_of
from tests.dataplane.chat import PATH, chats, connect_packet
from tests.dataplane.multiplexed import NAME, Answer, Browser
from tests.dataplane.peers import get, ok
from tests.dataplane.scripted import echo
from tests.dataplane.test_leaving import leave
from tests.dataplane.world import World, run
from tests.support.certificates import Authority
from tests.test_metrics import scrape, value


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


def is_leaving(connection: object) -> bool:
    """Whether it takes no further requests."""
    return isinstance(connection, Http2Connection) and connection.leaving


async def goaway(client: Browser) -> None:
    """Wait until the proxy says that it takes no further requests."""
    while client.goaway is None:
        await client.hear()
    client.h2.state_machine.state = type(
        client.h2.state_machine.state
    ).CLIENT_OPEN  # for the library that is all


def test_the_process_ends(authority: Authority) -> None:
    """Clients are told by GOAWAY; what they have asked for is answered, and what they ask then is refused."""

    async def test(world: World) -> None:
        client, idle = [await Browser.open(world, authority) for _ in range(2)]
        stream = client.ask(b"/slow")
        backend = await world.backend.accept()
        await backend.request()
        leaving = await leave(world)
        await world.breathe()
        world.plane._leaving._close_doors()  # type: ignore[union-attr]
        assert await idle.gone() == 0
        await goaway(client)
        assert client.goaway is not None
        assert (client.goaway.error_code, client.goaway.last_stream_id) == (0, stream)
        refused = await client.answer(client.ask(b"/late"))
        assert refused.reset == 7
        backend.say(ok(b"last"))
        answer = await client.answer(stream)
        assert (answer.status, answer.body) == (200, b"last")
        await client.gone()
        await leaving
        assert len(world.backend.peers) == 1

    run(test, tls=authority.issue(NAME))


def test_what_its_windows_hold_back_is_waited_for(authority: Authority) -> None:
    """The process does not end while a client still has to take an answer that is whole here."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority, slow=True)
        stream = client.ask()
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"x" * 100_000))
        await world.until(lambda: world.ended)
        leaving = await leave(world)
        while len(client.answers[stream].body) < 65_535:
            await client.hear()
        client.h2.increment_flow_control_window(100_000)
        client.h2.increment_flow_control_window(100_000, stream)
        client.flush()
        assert len((await client.answer(stream)).body) == 100_000
        await client.gone()
        await leaving

    run(test, tls=authority.issue(NAME))


@pytest.mark.parametrize("why", ["closed", "http2", "tls"])
def test_a_reload_that_ends_its_listener(authority: Authority, why: str) -> None:
    """Connections of a listener that is closed, or speaks HTTP/2 no more, end with their last stream."""
    pair = authority.issue(NAME)

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask()
        backend = await world.backend.accept()
        await backend.request()
        plane, config = world.plane, world.plane.site.config
        if why != "closed":
            tls = config.tls.model_copy(
                update={"http2": False} if why == "http2" else {"cert": None, "key": None}
            )
            config = config.model_copy(update={"tls": tls})
        other = net.bind(Address("127.0.0.1", 0))
        sockets = [other] if why == "closed" else [world.listening, other]
        await plane.configure(config, sockets, certificates_of(config))
        await goaway(client)
        backend.say(ok(b"last"))
        assert (await client.answer(stream)).body == b"last"
        await client.gone()
        other.close()
        world.listening.close()

    run(test, tls=pair)


def test_a_reload_that_keeps_its_listener(authority: Authority) -> None:
    """Nothing changes for who is connected."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await Browser.open(world, authority)
        await client.answer(client.ask(b"/1"))
        config = world.plane.site.config
        await world.plane.configure(config, [world.listening], certificates_of(config))
        assert (await client.answer(client.ask(b"/2"))).body == b"/2 "
        assert client.goaway is None

    run(test, tls=authority.issue(NAME))


def test_a_client_that_says_goodbye(authority: Authority) -> None:
    """After a client's GOAWAY its requests are answered (RFC 9113 section 6.8), and then it is closed."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        stream = client.ask()
        backend = await world.backend.accept()
        await backend.request()
        client.h2.close_connection()
        client.h2.state_machine.state = type(client.h2.state_machine.state).CLIENT_OPEN
        client.flush()
        await world.until(lambda: all(is_leaving(each) for each in world.plane.http2_connections))
        backend.say(ok(b"last"))
        assert (await client.answer(stream)).body == b"last"
        await client.gone()

    run(test, tls=authority.issue(NAME))


async def post(client: Browser, path: bytes, body: bytes, *more: tuple[bytes, bytes]) -> Answer:
    """A POST and its answer."""
    stream = client.ask(path, (b"content-length", b"%d" % len(body)), *more, method=b"POST", ends=False)
    client.say(stream, body, ends=True)
    return await client.answer(stream)


def test_tabs_that_poll(authority: Authority) -> None:
    """Twenty tabs of a browser chat over one connection, each pinned to its own instance, and are logged."""
    lines = io.StringIO()

    async def test(world: World) -> None:
        apps = chats(world)
        log = AccessLog(LogSettings.model_validate({"format": "json"}), lines)

        def access(record: Record) -> None:
            world.ended.append(record)
            log(record)

        world.plane.site.access = access
        client = await Browser.open(world, authority)
        tabs = []
        for number in range(20):
            name = "ab"[number % 2]
            cookie = (b"cookie", world.cookie(name).partition(b": ")[2])
            opened = await client.answer(client.ask(PATH + b"polling", cookie))
            sid = json.loads(opened.body[1:])["sid"].encode()
            assert sid.startswith(world.pin(name))
            path = PATH + b"polling&sid=" + sid
            assert (await post(client, path, connect_packet(f"session-{number}"), cookie)).body == b"ok"
            assert (await client.answer(client.ask(path, cookie))).body.startswith(b"40")
            tabs.append((name, path, cookie))
        assert {len(app.transports) for app in apps.values()} == {10}
        for round_ in range(3):
            polls = {client.ask(path, cookie): (name, path) for name, path, cookie in tabs}
            await world.until(lambda: len(world.plane.connections) == 21)
            samples = scrape(world)
            assert value(samples, "open_requests", state="polling") == 20
            assert value(samples, "open_streams") == 20
            assert value(samples, "open_connections", protocol="h2") == 1
            assert value(samples, "open_connections", protocol="http/1.1") == 0
            for app in apps.values():
                for sid, transport in app.transports.items():
                    transport.push(b"42%d-%b" % (round_, sid))
            for stream, (_, path) in polls.items():
                assert (await client.answer(stream)).body.endswith(path.rpartition(b".")[2])
        assert value(scrape(world), "connections_total", protocol="h2") == 1
        assert value(scrape(world), "streams_total") == 120
        log.flush()

    run(test, "ab", tls=authority.issue(NAME), debug=False)
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {(line["protocol"], line["client"]) for line in found} == {("h2", "127.0.0.1")}
    assert len(found) == 120


def test_both_protocols_share_a_session(authority: Authority) -> None:
    """A request in HTTP/1.1 is logged and counted as such, and goes to the same instance."""

    async def test(world: World) -> None:
        context = authority.client()
        world.backend.serve(echo)
        client = await Browser.open(world, authority)
        assert (await client.answer(client.ask(b"/project/file?session_id=s"))).status == 200
        reader, writer = await asyncio.open_connection(*world.address, ssl=context, server_hostname=NAME)
        writer.write(get(b"/project/file?session_id=s"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        world.guests += 1
        await world.until(lambda: len(world.ended) == 2)
        assert [record.request.known.origin.protocol for record in world.ended] == ["h2", "http/1.1"]
        assert value(scrape(world), "connections_total", protocol="http/1.1") == 1

    run(test, tls=authority.issue(NAME))


async def connected(world: World, client: Browser, session: str) -> bytes:
    """The path of a tab that polls and has connected to instance a."""
    cookie = (b"cookie", world.cookie("a").partition(b": ")[2])
    opened = await client.answer(client.ask(PATH + b"polling", cookie))
    path = PATH + b"polling&sid=%b" % str(json.loads(opened.body[1:])["sid"]).encode()
    assert (await post(client, path, connect_packet(session))).body == b"ok"
    assert (await client.answer(client.ask(path))).body.startswith(b"40")
    return path


def test_sessions_that_are_sent_away(authority: Authority) -> None:
    """A poll that waits is told, and those of other sessions on the connection wait on."""

    async def test(world: World) -> None:
        chats(world)
        client = await Browser.open(world, authority)
        leaves, stays = [await connected(world, client, f"session-{name}") for name in ("leaves", "stays")]
        polls = [client.ask(path) for path in (leaves, stays)]
        await world.until(lambda: len(world.plane.connections) == 3)
        sessions = world.plane.evictions.sessions_on(world.known("a"))
        world.plane.evictions.send_away([each for each in sessions if "leaves" in each.id])
        assert (await client.answer(polls[0])).status == 400
        assert not client.answers[polls[1]].fields

    run(test, "ab", tls=authority.issue(NAME))


def test_the_library_is_loaded_where_it_is_needed() -> None:
    """A proxy without TLS has nothing of HTTP/2 in memory."""
    looks = "import sys, proxy.app, proxy.cli; sys.exit(any(name in sys.modules for name in ('h2', 'hpack')))"
    assert subprocess.run([sys.executable, "-c", looks], check=False).returncode == 0
