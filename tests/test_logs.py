"""The logs: a line for every exchange that parses, tells what happened, and keeps secrets."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest

from proxy import borders, logs
from proxy.config import loads
from proxy.config.sections import LogSettings
from proxy.logs import AccessLog
from proxy.parts import Parts
from proxy.tracing import Spans
from proxy.wire.websocket import CLOSE
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.frames import Socket, upgrade
from tests.dataplane.peers import Peer, get, ok, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

JSON = LogSettings.model_validate({"format": "json"})
CONSOLE = LogSettings.model_validate({"format": "console"})


@pytest.fixture(autouse=True)
def _quiet_loggers() -> Iterator[None]:
    """Put the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def listen(world: World, settings: LogSettings = JSON) -> io.StringIO:
    """Log the world's exchanges; what is written comes here."""
    stream = io.StringIO()
    access, keep = AccessLog(settings, stream), world.ended.append

    def both(exchange: Any) -> None:
        access(exchange)
        keep(exchange)
        access.flush()

    world.plane.site.access = both
    return stream


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    """The lines as a machine reads them."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_exchange() -> None:
    """Who asked for what, which backend by what evidence, with what outcome, how long and how much."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        stream = listen(world)
        answer = await world.ask(post(b"/a%22b?c=d", b"1234", world.cookie("a")))
        (entry,) = entries(stream)
        assert 0 <= entry.pop("first_byte") <= entry.pop("seconds") < 10
        assert entry.pop("time").endswith("Z")
        assert entry == {
            "level": "info",
            "logger": "access",
            "event": "exchange",
            "id": (answer.get(b"x-request-id") or b"").decode(),
            "client": "127.0.0.1",
            "peer": "127.0.0.1",
            "protocol": "http/1.1",
            "method": "POST",
            "path": "/a%22b",
            "status": 200,
            "backend": "a",
            "evidence": "pin_cookie",
            "outcome": "pinned",
            "bytes_in": 4,
            "bytes_out": len(answer.body),
            "trace": None,
            "error": None,
        }

    run(test)


@pytest.mark.parametrize(
    ("trusted", "header", "client"),
    [
        (["127.0.0.0/8"], b"", "203.0.113.7"),
        (["127.0.0.0/8"], b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n", "192.0.2.9"),
        ([], b"", "127.0.0.1"),
    ],
    ids=["forwarded", "proxy_protocol", "untrusted"],
)
def test_behind_a_balancer(trusted: list[str], header: bytes, client: str) -> None:
    """The client is who a trusted balancer names, the peer is the balancer; a stranger names nobody."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        stream = listen(world)
        balancer = Peer(*await asyncio.open_connection(*world.address))
        world.clients.append(balancer)
        balancer.say(header + get(b"/x", b"X-Forwarded-For: 192.0.2.99, 203.0.113.7"))
        assert (await balancer.response()).status == 200
        (entry,) = entries(stream)
        assert (entry["client"], entry["peer"]) == (client, "127.0.0.1")

    run(test, forwarded={"trusted": trusted, "proxy_protocol": bool(header)})


def test_tunnel() -> None:
    """A websocket gets its line when it has ended, with the bytes and frames of both sides."""

    async def test(world: World) -> None:
        stream = listen(world)
        client = (await world.client()).say(upgrade(b"/ws"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
        )
        await client.response()
        assert await client.read(5) == b"hello"
        client.say(b"bye")
        assert await backend.read(3) == b"bye"
        backend.say(b"!")
        assert await client.read(1) == b"!"
        assert entries(stream) == []
        client.reset()
        await world.until(lambda: world.ended)
        (entry,) = entries(stream)
        assert (entry["event"], entry["status"], entry["error"]) == ("tunnel", 101, None)
        assert (entry["bytes_in"], entry["bytes_out"]) == (3, 1)
        assert (entry["frames_in"], entry["frames_out"], entry["close_code"]) == (1, 1, 1006)

    run(test)


async def open_chat(world: World) -> tuple[Socket, Socket]:
    """Both sides of the websocket of a session, after its CONNECT."""
    ours, theirs = await world.websocket(PATH + b"websocket")
    ours.say(b'40{"sessionId":"session-s"}')
    await theirs.hear()
    return ours, theirs


@pytest.mark.parametrize("reason", [b"enough", b"x" * 123])
@pytest.mark.parametrize("by_client", [True, False])
def test_a_tunnel_says_how_it_was_closed(by_client: bool, reason: bytes) -> None:
    """Its line has the close code, whichever side says it first, and how many frames there were.

    The CONNECT packet is one of them.
    """

    async def test(world: World) -> None:
        stream = listen(world)
        ours, theirs = await open_chat(world)
        for number in range(3):
            theirs.say(b'42["stream_token",%d]' % number)
            await ours.hear()
        ours.say(b"3")
        await theirs.hear()
        first, second = (ours, theirs) if by_client else (theirs, ours)
        first.say((4001).to_bytes(2, "big") + reason, opcode=CLOSE)
        await second.hear()
        first.peer.close()
        second.peer.close()
        await world.until(lambda: world.ended)
        (entry,) = entries(stream)
        assert (entry["frames_in"], entry["frames_out"]) == ((3, 3) if by_client else (2, 4))
        assert entry["close_code"] == 4001

    run(test)


def test_a_tunnel_that_the_proxy_closed() -> None:
    """A session that was sent away has the code that it was told."""

    async def test(world: World) -> None:
        stream = listen(world, CONSOLE)
        ours, _ = await open_chat(world)
        for tunnel in list(world.plane.tunnels):
            tunnel.active = False  # as when no frame is on its way
            tunnel.send_away()
        await ours.hear()
        await world.until(lambda: world.ended)
        assert "B 1/0 frames, closed with 1012\n" in stream.getvalue()

    run(test)


TRACE = b"0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("settings", [JSON, CONSOLE], ids=["json", "console"])
def test_the_trace_is_logged(settings: LogSettings) -> None:
    """`traceparent` and `tracestate` reach the backend as they came; the line names the trace."""

    async def test(world: World) -> None:
        stream = listen(world, settings)
        parent = b"traceparent: 00-%b-b7ad6b7169203331-01" % TRACE
        client = (await world.client()).say(get(b"/x", parent, b"tracestate: a=1,b=2"))
        backend = await world.backend.accept()
        request = await backend.request()
        assert request.get(b"traceparent") == parent.partition(b": ")[2]
        assert request.get(b"tracestate") == b"a=1,b=2"
        backend.say(ok())
        await client.response()
        told = TRACE.decode()
        if settings is JSON:
            assert entries(stream)[0]["trace"] == told
        else:
            assert stream.getvalue().endswith(f" trace={told}\n")

    run(test)


def test_errors_are_told() -> None:
    """A refusal, a cut response and a client that left each say why, or what status they had."""

    async def test(world: World) -> None:
        stream = listen(world)
        client = (await world.client()).say(get(b"/cut"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").close()
        await client.head()
        await world.until(lambda: len(world.ended) == 1)
        client = (await world.client()).say(get(b"/left"))
        await (await world.backend.accept()).request()
        client.reset()
        await world.until(lambda: len(world.ended) == 2)
        cut, left = entries(stream)
        assert (cut["status"], left["status"]) == (200, 0)
        assert cut["error"] == "the backend closed the connection before its response was whole"
        assert left["error"] is None

    run(test)


def test_no_backend() -> None:
    """An exchange that no backend served says so."""

    async def test(world: World) -> None:
        stream = listen(world)
        await world.ask(get())
        (entry,) = entries(stream)
        assert (entry["backend"], entry["evidence"], entry["outcome"]) == (None, None, None)
        assert (entry["status"], entry["error"]) == (503, "no backend takes requests")

    run(test, healthy=False, affinity={"hold": 0})


SECRETS = ("hunter2", "11111111-2222", "a-sid-0", "jwt-jwt", "pass word")


@pytest.mark.parametrize("settings", [JSON, CONSOLE], ids=["json", "console"])
def test_secrets_are_not_logged(settings: LogSettings) -> None:
    """No query string, cookie, session id, sid, pin or credential reaches a line, whatever happens."""

    async def test(world: World) -> None:
        session = "11111111-2222-3333-4444-555555555555"
        everything = io.StringIO()
        logs.set_up(LogSettings.model_validate({"format": settings.format, "level": "debug"}), everything)
        stream = listen(world, settings)
        instances = chats(world)
        instances["b"].sessions.add(session)
        fields = (
            world.cookie("a") + b"; X-Chainlit-Session-id=" + session.encode() + b"; access_token=jwt-jwt",
            b"Authorization: Bearer hunter2",
            b"X-Session-ID: " + session.encode(),
        )
        tab = Tab(world, *fields)
        await tab.handshake()
        await (await tab.post(connect_packet(session))).response()
        await tab.listen(b'40{"sid":"b"}')
        await tab.socket()
        await world.ask(get(b"/project/file/x?session_id=" + session.encode() + b"&token=hunter2", *fields))
        await world.ask(post(b"/login?password=pass%20word", b"username=x&password=pass word", *fields))
        await world.ask(get(PATH + b"polling&sid=forged.a-sid-01", *fields))
        world.backends[1].refuse()
        world.plane.site.pool(world.known("b")).close_all()
        await world.ask(get(b"/project/file/x?session_id=" + session.encode(), *fields))
        text = stream.getvalue() + everything.getvalue()
        assert text.count("\n") >= 7
        pins = [world.pin(name).decode() for name in "ab"]
        assert [secret for secret in (*SECRETS, *pins) if secret in text] == []

    run(test, "ab", debug=False, affinity={"hold": 0.1})


def test_every_line_is_one_line() -> None:
    """Nothing that a client sends can begin another line or end a field of JSON."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        stream = listen(world)
        target = b'/"\\\'"},{x}%0a%00~'
        await world.ask(get(target, method=b"A'B`|~"))
        (entry,) = entries(stream)
        assert (entry["path"], entry["method"]) == (target.decode(), "A'B`|~")

    run(test)


def test_lines_for_people() -> None:
    """The console format has one short line for each exchange."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        stream = listen(world, CONSOLE)
        await world.ask(get(b"/x?y", world.cookie("a")))
        line = stream.getvalue()
        assert line.count("\n") == 1
        assert "access  GET /x 200 a pin_cookie/pinned" in line

    run(test)


def test_lines_are_gathered_and_flushed() -> None:
    """Lines are written together, soon after the first, when many have gathered, and at the end."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        stream = io.StringIO()
        access = AccessLog(JSON, stream)
        await world.ask(get())
        (exchange,) = world.ended
        access(exchange)
        assert stream.getvalue() == ""
        await world.until(stream.getvalue, "the line was not written")
        access(exchange)
        access.flush()
        access.flush()
        assert len(entries(stream)) == 2
        for _ in range(250):
            access(exchange)
        assert 200 <= len(entries(stream)) < 252
        access.flush()
        assert len(entries(stream)) == 252
        await asyncio.sleep(0)

    run(test)


def test_records_for_machines() -> None:
    """Other log records are objects too, exceptions and line ends included."""
    stream = io.StringIO()
    logs.set_up(JSON, stream)
    log = logging.getLogger("proxy.test")
    log.info("two\nlines %s", ok(b'"'))
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError:
        log.exception("it failed")
    log.debug("not at this level")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["logger"]) == ("info", "proxy.test")
    assert first["message"].startswith("two\nlines ")
    assert "ZeroDivisionError: why" in second["exception"]


def test_chatty_libraries_are_quiet() -> None:
    """What libraries tell of every connection is not logged, even at debug level."""
    stream = io.StringIO()
    logs.set_up(LogSettings.model_validate({"level": "debug"}), stream)
    for name in ("asyncio", "uvicorn.error", "aiohttp.access"):
        logging.getLogger(name).info("chatter")
    assert stream.getvalue() == ""


@pytest.mark.interpreted
def test_who_is_told_of_requests_keeps_its_errors(caplog: pytest.LogCaptureFixture) -> None:
    """A line that cannot be made is told in the log; the request has ended, and who is told next is told."""
    exchanges: list[Any] = []
    told: list[Any] = []

    async def test(world: World) -> None:
        world.backend.serve(echo)
        await world.ask(get())
        exchanges.extend(world.ended)

    run(test)
    (exchange,) = exchanges
    exchange.request = None  # of which no line can be made
    borders._quiet_until.clear()
    parts = Parts(loads("backends: [{url: 'http://127.0.0.1:1'}]"))
    told_to = parts.exchange_log
    told_to._access, told_to._spans = AccessLog(JSON, io.StringIO()), cast("Spans", told.append)
    tell = told_to.listener
    assert tell is not None
    tell(exchange)
    assert told == [exchange]
    assert "AccessLog cannot tell of a request" in caplog.text
