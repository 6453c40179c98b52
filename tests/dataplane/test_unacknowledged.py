"""What was on its way to a client that is lost is known to the byte."""

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

from proxy.dataplane.leg import Leg
from proxy.dataplane.unacknowledged import LONG, MANY, Unacknowledged
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT
from tests.support.certificates import Authority

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
        server.unacknowledged = Unacknowledged.of(Leg(server.transport))
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
        server.unacknowledged = Unacknowledged.of(Leg(server.transport))
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
        unacknowledged = server.unacknowledged = Unacknowledged.of(Leg(server.transport))
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
