"""What was on its way to a client that is lost: known to the byte, and said again when it is back."""

import array
import asyncio
import contextlib
import fcntl
import random
import socket
import ssl
import sys
import termios
from pathlib import Path
from typing import cast

import pytest

from proxy.dataplane.unacknowledged import LONG, MANY, Unacknowledged
from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.frames import Socket
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT
from tests.dataplane.test_evictions import open_socket
from tests.dataplane.test_linger import CONNECTED, REFUSED, first, lingering, lose, refuse, tokens
from tests.dataplane.world import World, run
from tests.support.certificates import Authority
from tests.support.vanishing import vanish

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was acknowledged")


class Accepted(asyncio.Protocol):
    """A server's connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.made = asyncio.Event()
        self.lost = asyncio.Event()
        self.unacknowledged: Unacknowledged | None = None
        self.left = b""  # what nobody has got whole when it was lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self.made.set()

    def eof_received(self) -> bool:
        """As asyncio.Protocol: not the end of what is written."""
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio.Protocol."""
        if self.unacknowledged is not None:
            self.left, _ = self.unacknowledged.lost()
        self.lost.set()

    def say(self, piece: bytes) -> None:
        """Note it and write it, as the backend's side of a tunnel does."""
        assert self.unacknowledged is not None
        self.unacknowledged.note(piece)
        self.transport.write(piece)


async def reached(event: asyncio.Event) -> None:
    """Wait for it."""
    async with asyncio.timeout(WAIT):
        await event.wait()


def pieces(chance: random.Random, count: int, longest: int) -> list[bytes]:
    """So many, each of another length and content."""
    return [b"%06d" % number + chance.randbytes(chance.randrange(longest)) for number in range(count)]


class Client:
    """One in the words of the system: what it has read, and what its system has taken, are known."""

    def __init__(self, address: tuple[str, int], trusts: ssl.SSLContext | None = None) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.socket.settimeout(WAIT)
        self.socket.connect(address)
        self.heard = bytearray()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if trusts is not None:
            self._tls = trusts.wrap_bio(self._incoming, self._outgoing, server_hostname=address[0])
            self._shake()

    def _shake(self) -> None:
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._outgoing.read())
                self._incoming.write(self.socket.recv(1 << 16))
            else:
                self.socket.sendall(self._outgoing.read())
                return

    def read(self, most: int) -> None:
        """Read at most so many bytes, once there are any."""
        data = self.socket.recv(most)
        if self._tls is None:
            self.heard += data
            return
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                self.heard += self._tls.read(1 << 16)

    def read_to(self, size: int) -> None:
        """Read until it has heard so much."""
        while len(self.heard) < size:
            self.read(1 << 16)


def held(sock: socket.socket) -> int:
    """Bytes that its system has acknowledged and nobody has read."""
    size = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, size)
    return size[0]


async def settled(sock: socket.socket) -> int:
    """As `held`, once its system takes no more."""
    async with asyncio.timeout(WAIT):
        size, before = held(sock), -1
        while size != before:
            await asyncio.sleep(0.05)
            before, size = size, held(sock)
    return size


def first_missing(said: list[bytes], heard: bytes) -> int:
    """Which of them is the first that was not heard whole."""
    at = 0
    for number, piece in enumerate(said):
        at += len(piece)
        if at > len(heard):
            return number
    return len(said)


SECURE = {
    "plain": None,
    "TLS 1.2 with GCM": ("ECDHE+AESGCM", ssl.TLSVersion.TLSv1_2),
    "TLS 1.2 with ChaCha20": ("ECDHE+CHACHA20", ssl.TLSVersion.TLSv1_2),
    "TLS 1.3": ("ECDHE", ssl.TLSVersion.TLSv1_3),
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("secure", SECURE)
def test_what_a_client_has_not_taken_is_known(tmp_path: Path, secure: str, loop: str) -> None:
    """Its window is full: the first piece that is not whole there, and all behind it, and nothing before."""
    tls: ssl.SSLContext | None = None
    trusts: ssl.SSLContext | None = None
    if chosen := SECURE[secure]:
        authority = Authority(tmp_path)
        pair = authority.issue("127.0.0.1")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pair["cert"], pair["key"])
        tls.set_ciphers(chosen[0])
        tls.minimum_version = tls.maximum_version = chosen[1]
        trusts = authority.client()

    async def main() -> None:
        chance = random.Random(2)
        server = Accepted()
        listening = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0, ssl=tls)
        client = await asyncio.to_thread(Client, listening.sockets[0].getsockname(), trusts)
        await reached(server.made)
        server.transport.write(b"unnoted")
        await asyncio.to_thread(client.read_to, 7)
        server.unacknowledged = Unacknowledged.of(server.transport)
        said = [b"unnoted"]
        size = 7
        for number, piece in enumerate(pieces(chance, 300, 40_000)):
            size += len(piece)
            said.append(piece)
            server.say(piece)
            if number % 3:
                await asyncio.to_thread(client.read_to, size)
        assert server.unacknowledged is not None
        assert server.unacknowledged.lost()[0] in {b"", said[-1]}
        await asyncio.to_thread(client.read_to, size)
        for piece in pieces(chance, 480, 1000):
            said.append(piece)
            server.say(piece)
            if chance.random() < 0.05:
                await asyncio.sleep(0)
        taken = await settled(client.socket)
        left, had = server.unacknowledged.lost()
        client.read(taken)
        missing = first_missing(said, bytes(client.heard))
        assert 300 < missing < len(said)
        assert left == b"".join(said[missing:])
        assert had == (0 if tls else len(client.heard) - len(b"".join(said[:missing])))  # it is no TLS record
        client.socket.close()
        server.transport.abort()
        await reached(server.lost)
        listening.close()

    run_loop(main()) if loop == "uvloop" else asyncio.run(main())


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("unread", [False, True], ids=["end", "reset"])
def test_what_is_said_to_one_who_is_gone_is_lost(loop: str, *, unread: bool) -> None:
    """It was not known yet that it is: all of that, and what its system had taken is not."""

    async def main() -> None:
        chance = random.Random(1)
        server = Accepted()
        listening = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0)
        client = await asyncio.to_thread(Client, listening.sockets[0].getsockname())
        await reached(server.made)
        server.unacknowledged = Unacknowledged.of(server.transport)
        said = pieces(chance, 20, 1000)
        for piece in said:
            server.say(piece)
        size = len(b"".join(said))
        await asyncio.to_thread(client.read_to, size - 10 * unread)
        client.socket.close()
        late = pieces(chance, 3, 300)
        for piece in late:
            server.say(piece)
        await reached(server.lost)
        listening.close()
        assert server.left == b"".join(late)

    run_loop(main()) if loop == "uvloop" else asyncio.run(main())


@pytest.mark.parametrize("size", [100, LONG - 1, 1 << 17])
def test_a_client_that_takes_nothing_costs_no_more_with_time(size: int) -> None:
    """What waits for it is bounded, and looked at once for many pieces, not once more for each."""

    async def main() -> None:
        server = Accepted()
        listening = await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0)
        client = await asyncio.to_thread(Client, listening.sockets[0].getsockname())
        await reached(server.made)
        unacknowledged = server.unacknowledged = Unacknowledged.of(server.transport)
        assert unacknowledged is not None
        for _ in range(max(3 * MANY, (1 << 23) // size)):  # what waits after the kernels' buffers are full
            server.say(bytes(size))
            await asyncio.sleep(0)
            assert len(unacknowledged.pieces) <= MANY
            assert len(unacknowledged.lost()[0]) <= 1 << 19
        client.socket.close()
        server.transport.abort()
        await reached(server.lost)
        listening.close()

    run_loop(main())


def test_where_nobody_is_waited_for_nothing_is_kept() -> None:
    """What could never be said again takes no memory."""

    async def test(world: World) -> None:
        chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        assert tunnel.down.sent is None
        socket.peer.close()

    run(test, "ab", affinity={"linger": 0})


def test_a_heartbeat_that_nobody_gets_makes_nothing_be_said_twice() -> None:
    """It is the first that is not acknowledged: what was said before it is not said again."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        sent = tunnel.down.sent
        assert sent is not None
        first(instances).push(tokens(0, 1)[0])
        assert await socket.hear() == tokens(0, 1)[0]
        await world.until(lambda: not sent.lost()[0], "it is acknowledged")
        with vanish(socket.peer.writer.get_extra_info("socket").fileno()):
            first(instances).push(b"2")
            await world.until(lambda: tunnel.is_cut_off, "its system is silent")
            sent.forget()
            again = await Tab(world, world.cookie("a")).socket()
            assert await said_again(again, 1) == [CONNECTED]
            list(instances["a"].transports.values())[-1].push(tokens(1, 2)[0])
            assert await again.hear() == tokens(1, 2)[0]

    run(test, "ab")


def test_what_was_on_its_way_before_it_came_back_is_not_said_behind_newer_words() -> None:
    """It came back before its old connection was known to be gone, and is lost once more."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        sent = tunnel.down.sent
        assert sent is not None
        with vanish(socket.peer.writer.get_extra_info("socket").fileno()):
            first(instances).push(tokens(0, 1)[0])
            await world.until(lambda: sent.lost()[0] != b"")
            tunnel.down.sent = None  # so nobody can tell yet that its system is silent
            again = await Tab(world, world.cookie("a")).socket()
            assert await said_again(again, 1) == [CONNECTED]
            tunnel.down.sent = sent
            list(instances["a"].transports.values())[-1].push(tokens(1, 2)[0])
            assert await again.hear() == tokens(1, 2)[0]
            tunnel.down.abort()  # its system gives up
            await world.until(lambda: tunnel.is_closed)
            await lose(world, again)
            last = await Tab(world, world.cookie("a")).socket()
            assert await said_again(last, 1) == [CONNECTED]
            list(instances["a"].transports.values())[-1].push(tokens(2, 3)[0])
            assert await last.hear() == tokens(2, 3)[0]

    run(test, "ab")


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "not answered"])
def test_one_whom_the_instance_does_not_take_ends_nobody(*, refused: bool) -> None:
    """Whoever names the session of a client that is cut off is its owner only once Chainlit says so."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        with vanish(socket.peer.writer.get_extra_info("socket").fileno()):
            first(instances).push(tokens(0, 1)[0])
            await world.until(lambda: tunnel.is_cut_off, "its system is silent")
            tab = Tab(world, world.cookie("a"))
            if refused:
                refuse(instances["a"], "session-S")
                await tab.handshake()
                await (await tab.post(connect_packet("session-S"))).response()
                await tab.listen(REFUSED)
            else:
                instances["a"].hold("connect")
                stranger = await tab.socket()
                await stranger.hear()
                stranger.say(connect_packet("session-S"))
                await world.until(lambda: len(instances["a"].heard) > 1)
                stranger.peer.reset()
                await world.until(lambda: len(world.plane.tunnels) == 1)
            assert (tunnel.is_closed, lingering(world)) == (False, 0)

    run(test, "ab")


def test_what_was_said_in_the_moment_of_a_loss_is_said_again() -> None:
    """The proxy hears of the packets first and of the reset behind them: they are the first to be said."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        said = tokens(0, 3)
        for packet in said:
            old.push(packet)
        assert [await socket.hear() for _ in said] == said
        for packet in (*tokens(3, 6), b"2"):
            old.push(packet)
        socket.peer.reset()
        await world.until(lambda: not world.plane.tunnels)
        old.push(tokens(6, 7)[0])
        again = await Tab(world, world.cookie("a")).socket()
        assert await said_again(again, 5) == [CONNECTED, *tokens(3, 7)]

    run(test, "ab")


def test_what_is_lost_twice_is_said_in_the_end() -> None:
    """A client that is lost in the moment in which it gets what was collected has not got it."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        socket.peer.reset()
        await world.until(lambda: not world.plane.tunnels)
        first(instances).push(tokens(0, 1)[0])
        await world.until(
            lambda: any(one.what.packets for one in world.plane.site.lingers.by_session.values())
        )
        again = await Tab(world, world.cookie("a")).socket()
        assert await said_again(again, 2) == [CONNECTED, *tokens(0, 1)]
        for packet in tokens(1, 3):
            list(instances["a"].transports.values())[-1].push(packet)
        again.peer.reset()
        await world.until(lambda: not world.plane.tunnels)
        last = await Tab(world, world.cookie("a")).socket()
        assert await said_again(last, 3) == [CONNECTED, *tokens(1, 3)]

    run(test, "ab")


async def polled(tab: Tab) -> list[bytes]:
    """What it hears first that connects again by polling."""
    await tab.handshake()
    await (await tab.post(connect_packet("session-S"))).response()
    await tab.listen(tokens(3, 4)[0])
    return tab.got


async def said_again(socket: Socket, count: int) -> list[bytes]:
    """What a session that connects again hears first."""
    await socket.hear()
    socket.say(connect_packet("session-S"))
    return [await socket.hear() for _ in range(count)]


@pytest.mark.parametrize("polls", [False, True], ids=["websocket", "poll"])
def test_one_whose_network_is_gone_gets_it_on_the_next(*, polls: bool) -> None:
    """It comes back from another network before the proxy has heard of the end of the old one."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        old = first(instances)
        old.push(tokens(0, 1)[0])
        assert await socket.hear() == tokens(0, 1)[0]
        with vanish(socket.peer.writer.get_extra_info("socket").fileno()):
            for packet in tokens(1, 4):
                old.push(packet)
            (tunnel,) = world.plane.tunnels
            await world.until(lambda: tunnel.is_cut_off, "its system is silent")
            tab = Tab(world, world.cookie("a"))
            heard = await polled(tab) if polls else await said_again(await tab.socket(), 4)
            assert heard == [CONNECTED, *tokens(1, 4)]
            await world.until(lambda: tunnel.is_closed)
            assert world.plane.site.lingers.unacknowledged == 3

    run(test, "ab")


def test_one_who_is_there_keeps_its_connection() -> None:
    """A tab that was copied connects with the same session: the first one stays as it is."""

    async def test(world: World) -> None:
        instances = chats(world)
        socket = await open_socket(world)
        (tunnel,) = world.plane.tunnels
        for packet in tokens(0, 3):
            first(instances).push(packet)
        assert await said_again(await Tab(world, world.cookie("a")).socket(), 1) == [CONNECTED]
        assert [await socket.hear() for _ in range(3)] == tokens(0, 3)
        assert not tunnel.is_closed

    run(test, "ab")
