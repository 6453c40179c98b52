"""Sockets: what can be bound, connected and knocked at, and what each failure is called."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from proxy import net
from proxy.config import Address
from proxy.errors import ConnectRefused, ConnectTimeout, ProxyError
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT
from tests.dataplane.scripted import Backend

LOOPBACK = Address("127.0.0.1", 0)


def test_bound_socket_is_listening() -> None:
    """A bound socket accepts at once, is not blocking, and says where it can be reached."""
    with net.bind(LOOPBACK) as sock:
        port = sock.getsockname()[1]
        assert not sock.getblocking()
        assert net.bound_address(sock) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT):
            pass


def test_port_that_is_taken() -> None:
    """A port that something else listens on is an error that names the address."""
    with net.bind(LOOPBACK) as sock:
        address = Address("127.0.0.1", sock.getsockname()[1])
        with pytest.raises(net.ListenError, match=f"cannot listen on {address}: the port is taken"):
            net.bind(address)


def test_port_can_be_taken_again_at_once() -> None:
    """A restarted proxy need not wait for the connections of the one before it."""
    with net.bind(LOOPBACK) as sock:
        address = Address("127.0.0.1", sock.getsockname()[1])
        with socket.create_connection(("127.0.0.1", address.port), timeout=WAIT):
            sock.setblocking(True)
            sock.accept()[0].close()
    net.bind(address).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "host.invalid"])
def test_address_that_is_not_ours(host: str) -> None:
    """An address of another machine, or none at all, cannot be listened on."""
    with pytest.raises(net.ListenError, match=f"cannot listen on {host}:"):
        net.bind(Address(host, 18000))


def test_socket_file(tmp_path: Path) -> None:
    """A unix socket is bound at its path, and a client on it has no address."""
    path = tmp_path / "proxy.sock"

    async def test() -> None:
        peers: list[object] = []

        class Take(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                peers.append(transport.get_extra_info("peername"))
                transport.close()

        sock = net.bind(Address(path=str(path)))
        assert net.bound_address(sock) == f"unix:{path}"
        server = await net.serve(Take, sock)
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert await reader.read() == b""
        writer.close()
        server.close()
        assert not isinstance(peers[0], tuple)

    run_loop(test())


def test_socket_file_of_a_dead_process(tmp_path: Path) -> None:
    """A socket file on which nobody answers is replaced; one that is in use, or no socket, is not."""
    path = tmp_path / "proxy.sock"
    address = Address(path=str(path))
    net.bind(address).close()
    assert path.exists()
    with net.bind(address), pytest.raises(net.ListenError):
        net.bind(address)
    path.unlink()
    path.write_text("mine")
    with pytest.raises(net.ListenError):
        net.bind(address)
    assert path.read_text() == "mine"


def test_connection() -> None:
    """A connection to a backend is made within the time."""

    async def test() -> None:
        backend = Backend("a")
        await backend.listen()
        protocol = await net.connect(asyncio.Protocol, "127.0.0.1", backend.port, WAIT)
        assert isinstance(protocol, asyncio.Protocol)
        (await backend.accept()).reset()
        await backend.end()

    run_loop(test())


def test_connection_that_is_refused() -> None:
    """Where nobody listens, or no such host is known, the backend is not there."""

    async def test() -> None:
        backend = Backend("a")  # bound, so that nobody else is there, but not listening
        for host in ("127.0.0.1", "host.invalid"):
            with pytest.raises(ConnectRefused):
                await net.connect(asyncio.Protocol, host, backend.port, WAIT)
        await backend.end()

    run_loop(test())


def test_connection_that_is_not_accepted() -> None:
    """A backend that does not accept in time may only be slow, which is another error."""

    async def test() -> None:
        backend = Backend("a")
        await backend.listen()
        await backend.stall()
        with pytest.raises(ConnectTimeout, match=r"no connection within 0\.05 s"):
            await net.connect(asyncio.Protocol, "127.0.0.1", backend.port, 0.05)
        await backend.end()

    run_loop(test())


def test_own_lack_of_descriptors_is_not_the_backends_fault() -> None:
    """When this process can open no more sockets, the error is ours and the backend stays well."""

    async def test() -> None:
        backend = Backend("a")
        await backend.listen()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        fillers: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 8, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(socket.socket())
            with pytest.raises(ProxyError, match=os.strerror(errno.EMFILE)) as caught:
                await net.connect(asyncio.Protocol, "127.0.0.1", backend.port, WAIT)
            assert (type(caught.value), caught.value.status) == (ProxyError, 503)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                filler.close()
        await backend.end()

    run_loop(test())


def test_knock() -> None:
    """A knock opens a connection and closes it again; it fails as a connection does."""

    async def test() -> None:
        backend = Backend("a")
        await backend.listen()
        await net.knock("127.0.0.1", backend.port, WAIT)
        assert await (await backend.accept()).rest() == b""
        await backend.stall()
        with pytest.raises(ConnectTimeout):
            await net.knock("127.0.0.1", backend.port, 0.05)
        await backend.end()
        with pytest.raises(ConnectRefused):
            await net.knock("127.0.0.1", backend.port, WAIT)

    run_loop(test())


def test_reset_is_seen_as_one() -> None:
    """A reset is no clean end for the other side, and a second one does nothing."""

    async def test() -> None:
        backend = Backend("a")
        await backend.listen()
        lost = asyncio.Event()
        transports: list[asyncio.Transport] = []

        class Client(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transports.append(transport)  # type: ignore[arg-type]

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set()

        await net.connect(Client, "127.0.0.1", backend.port, WAIT)
        peer = await backend.accept()
        net.reset(transports[0])
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()
        await lost.wait()
        net.reset(transports[0])
        await backend.end()

    run_loop(test())


def _queued(sock: socket.socket) -> int:
    """How many connections wait in a listener's queue; they are taken."""
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.skipif(sys.platform != "linux", reason="steering is for Linux")
def test_shared_port_is_steered() -> None:
    """Who leaves a shared port sends new connections to the newest, or the oldest; who comes spreads them."""
    old = net.bind(Address("127.0.0.1", 0), shared=True)
    address = old.getsockname()
    assert not net.steer_away(old, newest=True), "there is nobody else"
    new = net.bind(Address("127.0.0.1", address[1]), shared=True)

    def knock() -> tuple[int, int]:
        for _ in range(40):
            socket.create_connection(address).close()
        return _queued(old), _queued(new)

    assert all(knock()), "both get some"
    assert net.steer_away(old, newest=True)
    assert knock() == (0, 40)
    assert net.steer_away(new, newest=False)
    assert knock() == (40, 0)
    third = net.bind(Address("127.0.0.1", address[1]), shared=True)
    assert all(knock())
    for sock in (old, new, third):
        sock.close()


def test_port_that_is_not_shared_is_not_steered() -> None:
    """It is nobody else's: another cannot join it either."""
    sock = net.bind(Address("127.0.0.1", 0))
    assert not net.steer_away(sock, newest=True)
    with pytest.raises(net.ListenError, match="the port is taken"):
        net.bind(Address("127.0.0.1", sock.getsockname()[1]), shared=True)
    sock.close()
