"""Plain HTTP beside TLS: where it leads, what it answers, and what it costs nobody."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from proxy import net
from proxy.config import Address
from proxy.dataplane.plain import answer_to
from proxy.errors import BadRequest, Limit
from proxy.wire.head import parse_request
from tests.dataplane.peers import Message, Peer, get
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

NAME = "chat.test"
HEAD = b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n"


def answered(target: bytes, host: bytes, own_port: int = 80, secure_port: int = 443) -> bytes:
    """The status of the answer, and where it leads."""
    head = parse_request(HEAD % (target, host), None)
    answer = answer_to(head, {"token": b"proof"}.get, own_port, secure_port)
    leads = [line for line in answer.extra.split(b"\r\n") if line.startswith(b"Location: ")]
    return b" ".join((b"%d" % answer.status, *leads)).replace(b"Location: ", b"")


@pytest.mark.parametrize(
    ("target", "host", "ports", "expected"),
    [
        (b"/", b"chat.test", (80, 443), b"308 https://chat.test/"),
        (b"/a/b?c=d&e", b"chat.test:80", (80, 443), b"308 https://chat.test/a/b?c=d&e"),
        (b"/", b"chat.test:8080", (8080, 8443), b"308 https://chat.test:8443/"),
        (b"/", b"chat.test", (80, 8443), b"308 https://chat.test:8443/"),
        (b"/", b"chat.test", (8080, 8443), b"308 https://chat.test/"),  # 80 and 443 lead to these
        (b"/", b"[::1]:8080", (8080, 443), b"308 https://[::1]/"),
        (b"http://other.test/x", b"chat.test", (80, 443), b"308 https://other.test/x"),
        (b"//elsewhere.test/", b"chat.test", (80, 443), b"308 https://chat.test//elsewhere.test/"),
        (b"/.well-known/acme-challenge/token", b"chat.test", (80, 443), b"200"),
        (b"/.well-known/acme-challenge/token?x", b"chat.test", (80, 443), b"200"),
        (b"/.well-known/acme-challenge/other", b"chat.test", (80, 443), b"404"),
        (b"/.well-known/acme-challenge/../token", b"chat.test", (80, 443), b"404"),
        (b"/.well-known/acme-challenge/", b"chat.test", (80, 443), b"404"),
        (b"/.well-known/other", b"chat.test", (80, 443), b"308 https://chat.test/.well-known/other"),
    ],
)
def test_where_it_leads(target: bytes, host: bytes, ports: tuple[int, int], expected: bytes) -> None:
    """To the same host and target, on the port with TLS; proofs are answered here."""
    assert answered(target, host, *ports) == expected


@pytest.mark.parametrize(
    "host", [b"", b"a,b", b"a;b", b"a'b", b"$a", b"a%0d", b"-a", b".", b"a:123456", b"(a)"]
)
def test_a_crafted_host_leads_nowhere(host: bytes) -> None:
    """A Host that is no host gets 400 and no address, or the head is refused before."""
    with contextlib.suppress(BadRequest):  # by the rules of heads
        assert answered(b"/", host) == b"400"


@pytest.fixture
def pair(tmp_path: Any) -> dict[str, str]:
    """A certificate."""
    return Authority(tmp_path).issue(NAME)


Test = Callable[[World, tuple[str, int]], Awaitable[None]]


def play(test: Test, pair: dict[str, str], **settings: Any) -> None:
    """Runs a test with a plain listener beside the one with TLS; it gets the address."""

    async def all_of_it(world: World) -> None:
        assert world.plane.certificates is not None
        sock = net.bind(Address("127.0.0.1", 0))
        greeted = bool(settings.get("forwarded", {}).get("proxy_protocol"))
        change = partial(world.plane.listeners.change, tls=world.plane.certificates.context, greeted=greeted)
        await change([world.listening, sock], plain=[sock])
        world.plane.listeners.answer = {"token": b"token.proof"}.get
        await test(world, sock.getsockname())
        await world.until(lambda: not world.plane.listeners._plain_clients)
        assert world.plane.site.clients.total == 0
        assert not world.backend.peers

    run(all_of_it, tls=pair, **settings)


async def ask(world: World, address: tuple[str, int], *pieces: bytes) -> Message:
    """What is answered to a request in pieces; then the connection has to be closed."""
    peer = await visit(world, address)
    for piece in pieces:
        peer.say(piece)
        await asyncio.sleep(0)
    answer = await peer.response()
    assert answer.get(b"connection") == b"close"
    await peer.gone()
    peer.close()
    return answer


async def visit(world: World, address: tuple[str, int]) -> Peer:
    """A connection that says nothing yet."""
    world.guests += 1
    return Peer(*await asyncio.open_connection(*address))


def test_everything_is_led_to_https(pair: dict[str, str]) -> None:
    """With any method, in any pieces, with a body that nobody reads; no backend hears of it."""

    async def test(world: World, address: tuple[str, int]) -> None:
        port = world.address[1]
        head = b"POST /project/file?x HTTP/1.1\r\nHost: chat.test:1\r\nContent-Length: 300000\r\n\r\n"
        for pieces in ([head, b"x" * 300_000], [head[at : at + 1] for at in range(len(head))]):
            answer = await ask(world, address, *pieces)
            assert answer.status == 308
            assert answer.get(b"location") == b"https://chat.test:%d/project/file?x" % port
        assert (
            await ask(world, address, HEAD % (b"/.well-known/acme-challenge/token", b"x.test"))
        ).body == b"token.proof"
        upgrade = b"GET /ws HTTP/1.1\r\nHost: chat.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert (await ask(world, address, upgrade)).status == 308
        assert world.plane.site.stats.requests["", "POST", 3] == 2

    play(test, pair)


def test_what_came_by_https_is_not_led_there(pair: dict[str, str]) -> None:
    """A trusted proxy that ends TLS in front of this address would bring it back for ever."""
    asked = b"GET / HTTP/1.1\r\nHost: chat.test\r\nX-Forwarded-Proto: %b\r\n\r\n"

    async def test(world: World, address: tuple[str, int]) -> None:
        answer = await ask(world, address, asked % b"https")
        assert answer.status == 421
        assert b"has to connect to the address with TLS" in answer.body
        assert (await ask(world, address, asked % b"http")).status == 308
        challenge = (asked % b"https").replace(b" / ", b" /.well-known/acme-challenge/token ")
        assert (await ask(world, address, challenge)).body == b"token.proof"

    play(test, pair)


def test_a_stranger_says_in_vain_that_it_came_by_https(pair: dict[str, str]) -> None:
    """Only trusted proxies know."""

    async def test(world: World, address: tuple[str, int]) -> None:
        asked = b"GET / HTTP/1.1\r\nHost: chat.test\r\nX-Forwarded-Proto: https\r\n\r\n"
        assert (await ask(world, address, asked)).status == 308

    play(test, pair, forwarded={"trusted": []})


def test_what_is_no_request_is_refused(pair: dict[str, str]) -> None:
    """As on any listener: malformed heads get 400, long ones 431, and late ones are closed."""

    async def test(world: World, address: tuple[str, int]) -> None:
        assert (await ask(world, address, b"\x16\x03\x01 hello\r\n\r\n")).status == 400
        assert (await ask(world, address, b"GET / HTTP/1.1\r\nX: " + b"x" * 3000)).status == 431
        late = await visit(world, address)
        await late.gone()
        late.close()
        assert world.plane.site.stats.limits[Limit.SLOW_HEAD] == 1
        assert world.plane.site.stats.limits[Limit.HEAD] == 1

    play(test, pair, timeouts={"head": 1}, limits={"head": 2048})


def test_limits_hold_here_too(pair: dict[str, str]) -> None:
    """A client has so many connections and requests, whether they are plain or not."""

    async def test(world: World, address: tuple[str, int]) -> None:
        first = await visit(world, address)
        await world.until(lambda: world.plane.site.clients.total == 1)
        answer = await ask(world, address, get())
        world.guests -= 1  # it was refused before it counted as one
        assert answer.status == 429
        first.close()
        await world.until(lambda: world.plane.site.clients.total == 0)
        statuses = []
        for _ in range(3):
            answer = await ask(world, address, get())
            statuses.append(answer.status)
            await world.until(lambda: world.plane.site.clients.total == 0)
        assert statuses == [308, 308, 429]
        assert 900 <= int(answer.get(b"retry-after") or b"") <= 1000

    limits = {"connections_per_client": 1, "requests_per_second": 0.001, "burst": 2}
    play(test, pair, limits=limits, forwarded={"trusted": []})


def test_a_proxy_in_front_may_greet(pair: dict[str, str]) -> None:
    """With the PROXY protocol a connection here begins with its header as well."""

    async def test(world: World, address: tuple[str, int]) -> None:
        answer = await ask(world, address, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", get())
        assert answer.status == 308

    play(test, pair, forwarded={"proxy_protocol": True})


def test_the_end_takes_them_along(pair: dict[str, str]) -> None:
    """Who has said nothing is let go when the proxy ends."""

    async def test(world: World, address: tuple[str, int]) -> None:
        silent = await visit(world, address)
        await world.until(lambda: world.plane.listeners._plain_clients)
        world.plane.listeners.close()
        await silent.gone()
        silent.close()

    play(test, pair)


def test_one_that_is_not_there_yet(pair: dict[str, str]) -> None:
    """Between accept and the first word of its transport the proxy may end: it is let go."""

    async def test(world: World, _: tuple[str, int]) -> None:
        listeners, loop = world.plane.listeners, asyncio.get_running_loop()
        late = listeners._plain_client("192.0.2.1", None)
        listeners.close()
        ours, theirs = socket.socketpair()
        await loop.connect_accepted_socket(lambda: late, ours)
        peer = Peer(*await asyncio.open_connection(sock=theirs))
        world.guests += 1
        await peer.gone()
        peer.close()

    play(test, pair)


def test_a_reload_makes_a_listener_plain_and_back(pair: dict[str, str]) -> None:
    """The same socket speaks TLS, leads to it, and speaks TLS again; who is connected stays."""

    async def test(world: World) -> None:
        assert world.plane.certificates is not None
        config, certificates = world.plane.site.config, world.plane.certificates
        other = net.bind(Address("127.0.0.1", 0))
        sockets, where = [other, world.listening], world.address
        await world.plane.configure(config, sockets, certificates, [world.listening])
        answer = await ask(world, where, get())
        assert answer.get(b"location") == b"https://chat.test/"
        silent = await visit(world, where)
        await world.until(lambda: world.plane.listeners._plain_clients)
        await world.plane.configure(config, sockets, certificates)
        peer = Peer(*await asyncio.open_connection(*where))
        await peer.say(get()).gone()  # what is no TLS is not answered any more
        peer.close()
        silent.say(get(b"/still"))
        assert (await silent.response()).status == 308
        silent.close()
        await world.plane.configure(config, [world.listening], certificates)
        other.close()

    run(test, tls=pair)
