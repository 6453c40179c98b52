"""Sockets: what can be bound, connected and knocked at, and what each failure is called."""

import asyncio
import contextlib
import errno
import os
import re
import resource
import socket
import ssl
import sys
from pathlib import Path

import pytest

from proxy import net
from proxy.config import Address
from proxy.errors import ConnectFailed, ConnectRefused, ConnectTimeout, HandshakeFailed, ProxyError
from proxy.names import Names
from proxy.steering import steer_away
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


def test_a_name_is_listened_on_at_all_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another machine, or of a family that this one does not speak, are left out; none is twice."""
    names = {"chat": ["127.0.0.1", "127.0.0.2", "192.0.2.1"], "other": ["127.0.0.2"], "far": ["192.0.2.1"]}

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    wanted = [Address("chat", 80), Address("other", 80), Address("far", 80), Address(path="/run/a.sock")]
    assert [str(address) for address in net.addresses(wanted)] == [
        "127.0.0.1:80",
        "127.0.0.2:80",
        "far:80",
        "unix:/run/a.sock",
    ]


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
    """Where nobody listens the backend is not there, whatever it is called."""

    async def test() -> None:
        backend = Backend("a")  # bound, so that nobody else is there, but not listening
        for host in ("127.0.0.1", "localhost"):
            told = re.escape(f"nobody listens at {host}:{backend.port} (connection refused)")
            with pytest.raises(ConnectRefused, match=told):
                await net.connect(asyncio.Protocol, host, backend.port, WAIT)
        await backend.end()

    run_loop(test())


def test_an_address_is_reached_without_waiting() -> None:
    """What listens on this machine is there at the second call, or has refused; nothing blocks."""

    def reach(sock: socket.socket, port: int) -> bool:
        return net.reach(sock, "127.0.0.1", port) or net.reach(sock, "127.0.0.1", port)

    async def test() -> None:
        backend = Backend("a")
        with net.begin("127.0.0.1") as sock:
            assert not sock.getblocking()
            with pytest.raises(ConnectRefused, match="nobody listens at 127"):
                reach(sock, backend.port)
        await backend.listen()
        with net.begin("127.0.0.1") as sock:
            assert reach(sock, backend.port)
            assert reach(sock, backend.port)  # as often as it is looked at
            (await backend.accept()).reset()
        with net.begin("224.0.0.1") as sock, pytest.raises(ConnectFailed, match=r"no connection to 224\."):
            net.reach(sock, "224.0.0.1", backend.port)
        with net.begin("::1") as sock:
            assert sock.family == socket.AF_INET6
        await backend.end()

    run_loop(test())


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", False),
        ("fe80::1%lo", False),
        ("127.1", False),
        ("", False),
    ],
)
def test_what_an_address_is(host: str, is_one: bool) -> None:
    """What the kernel takes as it is; anything else may have to be looked up, which takes a while."""
    assert net.is_address(host) == is_one


# what the system says to an attempt, the error, how it begins
MEANINGS = [
    (OSError(errno.ECONNREFUSED, ""), ConnectRefused, "nobody listens at a:1 (connection refused)"),
    (OSError(errno.ENOENT, ""), ConnectRefused, "nobody listens at a:1 (no such file"),
    (OSError(errno.EHOSTUNREACH, ""), ConnectFailed, "no connection to a:1: no route to host"),
    (OSError(errno.ENETUNREACH, ""), ConnectFailed, "no connection to a:1: network is unreachable"),
    (OSError(errno.EAGAIN, ""), ConnectFailed, "no connection to a:1: resource temporarily"),
    (OSError(errno.ECONNRESET, ""), ConnectFailed, "no connection to a:1: connection reset"),
    (OSError(errno.EPIPE, ""), ConnectFailed, "no connection to a:1: broken pipe"),
    (OSError(errno.EACCES, ""), ConnectFailed, "no connection to a:1: permission denied"),
    (OSError(errno.EPERM, ""), ConnectFailed, "no connection to a:1: operation not permitted"),
    (OSError("Multiple exceptions"), ConnectFailed, "no connection to a:1: multiple exceptions"),
    (ssl.SSLError(1, "[SSL] x"), HandshakeFailed, "no TLS: "),
    (UnicodeError("label too long"), ConnectFailed, "no connection to a:1: label too long"),
    (OSError(errno.EMFILE, ""), ProxyError, "this machine: Too many open files"),
    (OSError(errno.EADDRNOTAVAIL, ""), ProxyError, "this machine: Cannot assign"),
    (OSError(errno.ENOMEM, ""), ProxyError, "this machine: Cannot allocate"),
]


@pytest.mark.parametrize(("met", "kind", "text"), MEANINGS)
def test_what_a_failure_means(met: OSError | ValueError, kind: type[ProxyError], text: str) -> None:
    """Only a refusal says that nobody listens; what this machine lacks says nothing of the backend."""
    error = net._failure(met, "a:1")
    assert type(error) is kind
    assert error.reason.startswith(text)


def test_clients_are_not_told_where_backends_are() -> None:
    """The reason of a failed connection names addresses: it is for the log."""
    for kind in (ConnectRefused, ConnectFailed, ConnectTimeout, HandshakeFailed):
        assert kind.public_reason


@pytest.mark.parametrize(
    ("families", "kind"),
    [
        (("127.0.0.1", "127.0.0.2"), ConnectRefused),
        (("127.0.0.1", "224.0.0.1"), ConnectFailed),
        (("224.0.0.1", "127.0.0.1"), ConnectFailed),
        (("2001:db8::1", "127.0.0.1"), ConnectRefused),
        (("127.0.0.1", "2001:db8::1"), ConnectRefused),
    ],
)
def test_several_addresses(
    families: tuple[str, str], kind: type[ProxyError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is tried. A backend is gone only if nobody listens at any; without IPv6 here, at any other."""
    monkeypatch.setattr(net, "_NAMES", Names(lambda _: families))

    async def test() -> None:
        backend = Backend("a")
        with pytest.raises(ProxyError) as caught:
            await net.connect(asyncio.Protocol, "two.test", backend.port, WAIT)
        assert type(caught.value) is kind, caught.value
        await backend.end()

    run_loop(test())


def test_a_name_that_fails_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that last worked serves while its name does not resolve; another one is followed."""
    answers: dict[str, list[str]] = {"a.test": ["127.0.0.9", "127.0.0.1"]}
    monkeypatch.setattr(net, "_NAMES", Names(lambda name: answers.get(name, [])))

    async def test() -> None:
        backend = Backend("a")
        await backend.listen()
        with pytest.raises(ConnectFailed, match=r"the name b\.test does not resolve"):
            await net.connect(asyncio.Protocol, "b.test", backend.port, WAIT)
        await net.connect(asyncio.Protocol, "a.test", backend.port, WAIT)
        answers.clear()
        await net.connect(asyncio.Protocol, "a.test", backend.port, WAIT)
        answers["a.test"] = ["127.0.0.9"]
        with pytest.raises(ConnectRefused):
            await net.connect(asyncio.Protocol, "a.test", backend.port, WAIT)
        for _ in range(2):
            (await backend.accept()).reset()
        await backend.end()

    run_loop(test())


def test_socket_file_that_may_only_be_busy(tmp_path: Path) -> None:
    """A unix socket whose backlog is full is silent, one without a listener or a file is refused."""

    async def test() -> None:
        path = str(tmp_path / "a.sock")
        with pytest.raises(ConnectRefused, match="no such file"):
            await net.connect(asyncio.Protocol, "", 0, WAIT, path=path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            with pytest.raises(ConnectRefused, match="connection refused"):
                await net.connect(asyncio.Protocol, "", 0, WAIT, path=path)
            listener.listen(0)
            await net.connect(asyncio.Protocol, "", 0, WAIT, path=path)
            with pytest.raises(ConnectFailed, match=r"temporarily unavailable|no connection within"):
                await net.connect(asyncio.Protocol, "", 0, 0.2, path=path)
            listener.accept()[0].close()

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
    assert not steer_away(old, newest=True), "there is nobody else"
    new = net.bind(Address("127.0.0.1", address[1]), shared=True)

    def knock() -> tuple[int, int]:
        for _ in range(40):
            socket.create_connection(address).close()
        return _queued(old), _queued(new)

    assert all(knock()), "both get some"
    assert steer_away(old, newest=True)
    assert knock() == (0, 40)
    assert steer_away(new, newest=False)
    assert knock() == (40, 0)
    third = net.bind(Address("127.0.0.1", address[1]), shared=True)
    assert all(knock())
    for sock in (old, new, third):
        sock.close()


def test_port_that_is_not_shared_is_not_steered() -> None:
    """It is nobody else's: another cannot join it either."""
    sock = net.bind(Address("127.0.0.1", 0))
    assert not steer_away(sock, newest=True)
    with pytest.raises(net.ListenError, match="the port is taken"):
        net.bind(Address("127.0.0.1", sock.getsockname()[1]), shared=True)
    sock.close()
