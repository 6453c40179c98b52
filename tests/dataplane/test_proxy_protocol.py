"""Listeners whose trusted peers begin with a PROXY header: whose connection it is, and what is refused."""

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from proxy import net
from proxy.config import Address
from proxy.dataplane.acceptor import Acceptor
from proxy.errors import Limit
from proxy.wire.proxy_protocol import SIGNATURE
from tests.dataplane.frames import ACCEPT, upgrade
from tests.dataplane.peers import SMALL, Cut, Message, Peer, get
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

CLIENT = "203.0.113.7"
LINE = b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n"
BINARY = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((203, 0, 113, 7, 10, 0, 0, 1)) + b"\x12\x34\x01\xbb"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
ON: dict[str, Any] = {"forwarded": {"proxy_protocol": True}}
OF_OTHERS: dict[str, Any] = {"forwarded": {"proxy_protocol": True, "trusted": ["10.0.0.0/8"]}}


async def connect(world: World) -> Peer:
    """A new connection, which may be one that the proxy does not count yet."""
    peer = Peer(*await asyncio.open_connection(*world.address, limit=SMALL))
    world.clients.append(peer)
    return peer


async def asked(world: World) -> Message:
    """The next request at the backend, which is answered."""
    await world.until(lambda: world.backend.requests)
    return world.backend.requests.pop()


async def last_words(client: Peer) -> bytes:
    """All that a client hears before its connection is closed or reset."""
    try:
        return await client.rest()
    except Cut as cut:
        return cut.message


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["v1", "v2"])
@pytest.mark.parametrize("in_pieces", [False, True])
def test_the_client_is_who_the_header_names(header: bytes, in_pieces: bool) -> None:
    """The instance, the log and the limits know the client; the load balancer is nowhere."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await connect(world)
        for part in [bytes((byte,)) for byte in header] if in_pieces else [header]:
            client.say(part)
            await world.breathe()
        for path in (b"/one", b"/two"):
            client.say(get(path, b"X-Forwarded-For: 192.0.2.99"))
            assert (await client.response()).status == 200
            request = await asked(world)
            assert request.get(b"x-forwarded-for") == CLIENT.encode()
            assert b"for=203.0.113.7;" in (request.get(b"forwarded") or b"")
        assert [exchange.request.known.origin.address for exchange in world.ended] == [CLIENT, CLIENT]
        assert world.plane.site.stats.proxy_headers_refused == 0

    run(test, **ON)


def test_what_comes_with_the_header_is_not_lost() -> None:
    """A request in the same segment is served; so is one whose body follows."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await connect(world)).say(LINE + get(b"/one") + get(b"/two"))
        assert (await client.response()).body == b"/one "
        assert (await client.response()).body == b"/two "

    run(test, **ON)


def test_a_header_in_the_second_place_is_a_bad_request() -> None:
    """Only the first bytes of a connection can name its client."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await connect(world)).say(LINE + LINE + get())
        assert (await client.response()).status == 400
        await client.gone()

    run(test, **ON)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL], ids=["v1", "v2"])
def test_a_header_that_names_nobody(header: bytes) -> None:
    """The connection is the load balancer's own; its word in X-Forwarded-For counts, as without a header."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await connect(world)).say(header + get(b"/", b"X-Forwarded-For: 192.0.2.99"))
        assert (await client.response()).status == 200
        assert (await asked(world)).get(b"x-forwarded-for") == b"192.0.2.99, 127.0.0.1"

    run(test, **ON)


def test_a_client_that_is_a_trusted_proxy_itself() -> None:
    """A proxy before the load balancer is believed about its clients, as if it had come itself."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        header = b"PROXY TCP4 127.0.0.9 127.0.0.1 1 2\r\n"
        client = (await connect(world)).say(header + get(b"/", b"X-Forwarded-For: 192.0.2.99"))
        assert (await client.response()).status == 200
        assert (await asked(world)).get(b"x-forwarded-for") == b"192.0.2.99, 127.0.0.9"

    run(test, forwarded={"proxy_protocol": True, "trusted": ["127.0.0.0/8"]})


def test_strangers_name_nobody() -> None:
    """A header of an address that is not trusted is a bad request; without one it is served as ever."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        for header in (LINE, BINARY):
            assert (await world.ask(header + get())).status == 400
        assert (await world.ask(get())).status == 200
        assert (await asked(world)).get(b"x-forwarded-for") == b"127.0.0.1"
        assert world.backend.requests == []

    run(test, **OF_OTHERS)


def test_without_the_setting_nobody_names_a_client() -> None:
    """By default a header is a bad request, also of a trusted peer."""

    async def test(world: World) -> None:
        for header in (LINE, BINARY):
            assert (await world.ask(header + get())).status == 400

    run(test)


@pytest.mark.parametrize(
    "start", [get(), b"\x16\x03\x01\x00", b"PROXY TCP4 a b 1 2\r\n", SIGNATURE + b"\x31" * 4]
)
def test_a_trusted_peer_without_a_valid_header(start: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is told so and closed, counted each time and logged once; no backend hears of it."""

    async def test(world: World) -> None:
        for _ in range(3):
            client = (await connect(world)).say(start)
            answer = await client.response()
            assert (answer.status, b"PROXY header" in answer.body) == (400, True)
            await client.gone()
        assert world.plane.site.stats.proxy_headers_refused == 3
        assert world.plane.site.stats.connections == 0
        world.guests -= 3

    with caplog.at_level(logging.WARNING, "proxy"):
        run(test, **ON)
    assert caplog.text.count("127.0.0.1 sent no valid PROXY header") == 1


@pytest.mark.parametrize("start", [b"", LINE[:-1], BINARY[:-1]])
def test_a_header_that_does_not_come_in_time(start: bytes) -> None:
    """It has `timeouts.head`, however steadily its bytes come."""

    async def test(world: World) -> None:
        client = (await connect(world)).say(start)
        await client.gone()
        assert world.plane.site.stats.proxy_headers_refused == 1
        world.guests -= 1

    run(test, timeouts={"head": 0.3}, **ON)


@pytest.mark.parametrize("start", [b"", LINE[:9]])
def test_a_peer_that_goes_before_its_header(start: bytes) -> None:
    """A load balancer that only looks whether somebody listens makes no noise."""

    async def test(world: World) -> None:
        for leave in (Peer.half_close, Peer.reset):
            client = (await connect(world)).say(start)
            leave(client)
            await client.gone()
        assert world.plane.site.stats.proxy_headers_refused == 0
        world.guests -= 2

    run(test, **ON)


def test_limits_are_those_of_the_named_client() -> None:
    """Connections are counted for who is named, not for the load balancer."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        other = LINE.replace(b".7 ", b".8 ")
        for header in (LINE, other):
            client = (await connect(world)).say(header + get(b"/x"))
            assert (await client.response()).status == 200
            assert (await (await connect(world)).say(header).response()).status == 429
        assert world.plane.site.stats.limits[Limit.CONNECTIONS_PER_CLIENT] == 2

    run(test, limits={"connections_per_client": 1}, **ON)


def test_websockets_pass() -> None:
    """A tunnel begins behind a header as behind none."""

    async def test(world: World) -> None:
        client = (await connect(world)).say(BINARY + upgrade(b"/ws"))
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"x-forwarded-for") == CLIENT.encode()
        backend.say(ACCEPT + b"hello")
        assert (await client.response()).status == 101
        assert await client.read(5) == b"hello"
        client.say(b"bye").half_close()
        assert await backend.rest() == b"bye"
        backend.close()

    run(test, **ON)


async def secure_answer(world: World, context: ssl.SSLContext, header: bytes) -> bytes:
    """What a request over TLS is answered whose first segment holds the header and the ClientHello."""
    loop = asyncio.get_running_loop()
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(coming, going, server_hostname="chat.test")
    sock = socket.create_connection(world.address)
    sock.setblocking(False)
    first, answer, sent = header, b"", False
    with sock:
        while b"\r\n\r\n" not in answer:
            try:
                if not sent:
                    tls.do_handshake()
                    tls.write(get(b"/secure", b"Connection: close"))
                    sent = True
                answer += tls.read(1 << 16)
            except ssl.SSLWantReadError:
                if out := first + going.read():
                    sock.send(out)  # before the proxy has accepted, the first time
                    first = b""
                data = await loop.sock_recv(sock, 1 << 16)
                if not data:
                    raise Cut(answer) from None
                coming.write(data)
    return answer


def test_tls_begins_behind_the_header(tmp_path: Path) -> None:
    """The header stands before TLS, and the client is secure and who it names."""
    authority = Authority(tmp_path)

    async def test(world: World) -> None:
        world.backend.serve(echo)
        for header in (LINE, BINARY):
            world.guests += 1
            answer = await secure_answer(world, authority.client(), header)
            assert answer.startswith(b"HTTP/1.1 200")
            request = await asked(world)
            forwarded = (request.get(b"x-forwarded-for"), request.get(b"x-forwarded-proto"))
            assert forwarded == (CLIENT.encode(), b"https")

    run(test, tls=authority.issue("chat.test"), **ON)


def test_tls_that_fails_behind_the_header(tmp_path: Path) -> None:
    """Who speaks no TLS there, or goes in the middle of it, or sent no header, is closed without a word."""
    authority = Authority(tmp_path)

    async def test(world: World) -> None:
        for start in (LINE + get(), LINE + b"\x16\x03\x01", get(), b"\x16\x03\x01\x00\x05"):
            client = (await connect(world)).say(start)
            if start.endswith(b"\x01"):
                client.half_close()
            assert b"HTTP" not in await last_words(client)
        assert world.plane.site.stats.proxy_headers_refused == 2
        world.guests -= 4

    run(test, tls=authority.issue("chat.test"), **ON)


def test_strangers_speak_tls_at_once(tmp_path: Path) -> None:
    """Only trusted peers have to begin with a header, on a TLS listener too."""
    authority = Authority(tmp_path)

    async def test(world: World) -> None:
        world.backend.serve(echo)
        world.guests += 1
        assert (await secure_answer(world, authority.client(), b"")).startswith(b"HTTP/1.1 200")
        assert (await asked(world)).get(b"x-forwarded-for") == b"127.0.0.1"

    run(test, tls=authority.issue("chat.test"), **OF_OTHERS)


def test_a_unix_listener(tmp_path: Path) -> None:
    """Who may open the socket file is trusted, and so has to say whom it is for."""
    path = str(tmp_path / "s")

    async def test(world: World) -> None:
        world.backend.serve(echo)
        plane = world.plane
        sock = net.bind(Address.parse(f"unix:{path}"))
        acceptor = Acceptor(plane.site, plane, sock, plane._connection, None, greeted=True, greetings=set())
        for start, status in ((LINE + get(), 200), (get(), 400)):
            peer = Peer(*await asyncio.open_unix_connection(path))
            peer.say(start)
            assert (await peer.response()).status == status
            peer.close()
        assert (await asked(world)).get(b"x-forwarded-for") == CLIENT.encode()
        world.guests += 1
        acceptor.close()

    run(test, **ON)


@pytest.mark.parametrize("why", ["reload", "descriptors"])
def test_those_who_wait_stay_when_no_more_are_accepted(why: str) -> None:
    """A reload that wants no header any more, and a shortage of descriptors, cut nobody off."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = (await connect(world)).say(LINE[:9])
        listeners = world.plane.listeners
        await world.until(lambda: listeners._greetings)
        if why == "reload":
            await listeners.change([world.listening], None, greeted=False)
        else:
            listeners.shut = True
            listeners._close_servers()
        client.say(LINE[9:] + get())
        assert (await client.response()).status == 200
        assert (await asked(world)).get(b"x-forwarded-for") == CLIENT.encode()
        assert not listeners._greetings

    run(test, **ON)


def test_those_who_wait_are_let_go_at_the_end() -> None:
    """A proxy that leaves does not wait for a header, and takes no connection more."""

    async def test(world: World) -> None:
        waiting = (await connect(world)).say(LINE[:9])
        (acceptor,) = world.plane.listeners._servers.values()
        assert isinstance(acceptor, Acceptor)
        await world.until(lambda: acceptor.greetings)
        await world.plane.leave(1)
        await waiting.gone()
        with pytest.raises(OSError):
            await asyncio.open_connection(*world.address)
        world.guests -= 1

    run(test, **ON)
