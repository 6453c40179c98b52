"""The only place that opens sockets: listeners, and connections to backends; or takes over open ones."""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import ssl
import stat
import struct
import sys
import termios
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

from proxy.config import Address
from proxy.errors import ConnectFailed, ConnectRefused, ConnectTimeout, HandshakeFailed, ProxyError
from proxy.names import Names
from proxy.tls import Trust

P = TypeVar("P", bound=asyncio.BaseProtocol)

_BACKLOG = 1024
_FIRST_INHERITED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
_ATTACH_REUSEPORT_CBPF, _DETACH_REUSEPORT_BPF = 51, 68  # asm-generic/socket.h
# Seconds, seconds and tries (tcp(7)): a connection whose other end is gone breaks within four seconds.
_LIFE = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
_NO_LINGER = struct.pack("ii", 1, 0)  # socket(7): close resets
# Ours to blame, not the backend's: descriptors, memory or local ports have run out.
_OWN_FAULT = frozenset((errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM))
# All that says for sure that a backend is not there; the second is that of a socket file.
_NOBODY_LISTENS = frozenset((errno.ECONNREFUSED, errno.ENOENT))
_NO_IPV6 = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
_NAMES = Names()  # one for the process, as the system's resolver is


class ListenError(Exception):
    """An address cannot be listened on; the text says which and why."""


async def connect(
    factory: Callable[[], P],
    host: str,
    port: int,
    timeout: float,  # noqa: ASYNC109
    tls: Trust | None = None,
    path: str = "",
) -> P:
    """Open a connection to a backend within `timeout` seconds, with TLS where there is `tls`.

    With a `path` to the unix socket there. Of a name's addresses each gets its part of the time.

    Raises ConnectRefused where nobody listens, ConnectFailed (HandshakeFailed, ConnectTimeout) where that is
    not known, or ProxyError where this machine is out of something.
    """
    loop = asyncio.get_running_loop()
    if path:
        return await _open(loop.create_unix_connection(factory, path), timeout, timeout, path)
    end, where = loop.time() + timeout, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    addresses = await _addresses(host, timeout)
    failures: list[ProxyError] = []
    not_spoken: list[ProxyError] = []
    for place, address in enumerate(addresses):
        opening = loop.create_connection(
            factory,
            address,
            port,
            ssl=tls.context if tls else None,
            server_hostname=tls.server_name if tls else None,
        )
        share = (end - loop.time()) / (len(addresses) - place)
        try:
            protocol = await _open(opening, share, timeout, where)
        except ProxyError as error:
            (not_spoken if _is_not_spoken(address, error) else failures).append(error)
        else:
            _NAMES.worked(host, address)
            return protocol
    raise min(failures or not_spoken, key=_certainty) from None


async def _addresses(host: str, timeout: float) -> Sequence[str]:  # noqa: ASYNC109
    try:
        async with asyncio.timeout(timeout):
            return await _NAMES.find(host)
    except TimeoutError:
        raise ConnectTimeout(f"the name {host} did not resolve within {timeout:g} s") from None
    except (OSError, ValueError) as error:  # the latter where it has no form that can be looked up
        raise _failure(error, host) from None


async def _open(opening: Awaitable[tuple[object, P]], within: float, timeout: float, where: str) -> P:  # noqa: ASYNC109
    try:
        async with asyncio.timeout(within):
            _, protocol = await opening
    except TimeoutError:
        raise ConnectTimeout(f"no connection within {timeout:g} s") from None
    except (OSError, ValueError) as error:
        raise _failure(error, where) from error
    return protocol


def _failure(error: OSError | ValueError, where: str) -> ProxyError:
    """What it means that no connection to `where` could be opened."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeFailed(f"its certificate does not verify: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return HandshakeFailed(f"no TLS: {getattr(error, 'reason', None) or error}")
    number = (error.errno if isinstance(error, OSError) else None) or 0
    if number in _OWN_FAULT:
        return ProxyError(f"this machine: {os.strerror(number)}", status=503)
    text = os.strerror(number) if number > 0 else str(error)
    text = text[:1].lower() + text[1:]
    if number in _NOBODY_LISTENS:
        return ConnectRefused(f"nobody listens at {where} ({text})")
    return ConnectFailed(f"no connection to {where}: {text}")


def _is_not_spoken(address: str, error: ProxyError) -> bool:
    """Whether the address could not be tried, for want of IPv6 here: others of its name tell more."""
    return ":" in address and getattr(error.__cause__, "errno", None) in _NO_IPV6


def _certainty(error: ProxyError) -> int:
    """Order what several addresses met: a backend is gone only if nobody listens at any of them."""
    if isinstance(error, ConnectRefused):
        return 2
    return 1 if isinstance(error, ConnectFailed) else 0


def bind(address: Address, *, shared: bool = False) -> socket.socket:
    """A bound and listening socket, not blocking. Raises ListenError.

    Other processes may listen on the same port if all of them bind it `shared`.
    """
    try:
        if address.is_unix:
            _remove_stale_socket(address.path)
            family, where = socket.AF_UNIX, address.path
        else:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            family, where = found[0][0], found[0][4]  # type: ignore[assignment]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared and not address.is_unix:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(where)
            sock.listen(_BACKLOG)
            if shared and not address.is_unix:
                _spread(sock)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except UnicodeError:  # as in `connect`
        raise ListenError(f"cannot listen on {address}: {address.host} is no name of a host") from None
    except OSError as error:
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ListenError(f"cannot listen on {address}: {reason}") from None
    return sock


class Inherited:
    """Listening sockets that the service manager opened, by systemd's protocol (sd_listen_fds(3)).

    Created once, before anything else is started: what is taken over is not handed on to replicas. They stay
    open here as long as the process lives, as they do at the service manager; what is handed out is a second
    descriptor of the same socket, so that an address may be given up by a reload and taken again.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Raises ListenError if one is no listening stream socket."""
        mine = environ.get("LISTEN_PID") == str(os.getpid())
        count = int(environ.get("LISTEN_FDS", "0")) if mine else 0
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environ.pop(name, None)
        self._sockets = [_adopt(_FIRST_INHERITED + number) for number in range(count)]

    def open(self, address: Address, *, shared: bool = False) -> socket.socket:
        """The socket that was handed over for an address, else one of our own, as `bind`."""
        for sock in self._sockets:
            if _listens_on(sock, address):
                return sock.dup()
        return bind(address, shared=shared)

    def refuse_others(self, addresses: Iterable[Address]) -> None:
        """Raise ListenError if a socket was handed over that is none of these: nobody would answer there."""
        wanted = list(addresses)
        for sock in self._sockets:
            if not any(_listens_on(sock, address) for address in wanted):
                where = bound_address(sock).removeprefix("http://")
                raise ListenError(
                    f"a socket on {where} was handed over, but the configuration names only "
                    f"{', '.join(map(str, wanted))}"
                )

    def __repr__(self) -> str:
        return f"<Inherited {len(self._sockets)}>"


def _adopt(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.detach()
            raise OSError(errno.EINVAL, "not a stream socket that listens")
    except OSError as error:
        raise ListenError(f"descriptor {descriptor} was handed over but is unfit: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def _listens_on(sock: socket.socket, address: Address) -> bool:
    """Whether connections to an address arrive at a socket."""
    if sock.family == socket.AF_UNIX or address.is_unix:
        return sock.family == socket.AF_UNIX and sock.getsockname() == address.path
    host, port = sock.getsockname()[:2]
    if port != address.port:
        return False
    try:
        wanted = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM)[0][4][0]
    except (OSError, UnicodeError):
        return False
    # systemd opens `ListenStream=8000` on every address of both families.
    return host == wanted or (host == "::" and wanted == "0.0.0.0")  # noqa: S104 - compared, not bound


def steer_away(sock: socket.socket, *, newest: bool) -> bool:
    """Have new connections to a shared port queue at another process's socket; False if there is none.

    The kernel keeps the sockets of a port in the order in which they joined. A program (cBPF, socket(7):
    SO_ATTACH_REUSEPORT_CBPF) tells the place of the one that gets a connection: the newest, or the oldest.
    """
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return False
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        return False
    others = _listeners(sock) - 1
    if others < 1:
        return False
    # One instruction, "return this number" (BPF_RET | BPF_K), in a struct sock_fprog.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, others if newest else 0))
    program = struct.pack("@HP", 1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, program)
    return True


def _spread(sock: socket.socket) -> None:
    """New connections are spread over all who share the port, whatever one that left has asked for."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # nobody has asked for anything
            sock.setsockopt(socket.SOL_SOCKET, _DETACH_REUSEPORT_BPF, 0)


def _listeners(sock: socket.socket) -> int:
    """How many sockets listen where this one does (proc(5): /proc/net/tcp; 0A is TCP_LISTEN)."""
    host, port = sock.getsockname()[:2]
    packed = socket.inet_pton(sock.family, host)
    words = struct.unpack(f"@{len(packed) // 4}I", packed)
    local = "".join(f"{word:08X}" for word in words) + f":{port:04X}"
    table = Path("/proc/net/tcp6" if sock.family == socket.AF_INET6 else "/proc/net/tcp")
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return 1
    return sum(1 for line in lines if line.split()[1:4:2] == [local, "0A"]) or 1


def bound_address(sock: socket.socket, *, secure: bool = False) -> str:
    """Where a bound socket can be reached, as a URL where it has one; `secure` if it speaks TLS."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def serve(factory: Callable[[], asyncio.Protocol], sock: socket.socket) -> asyncio.Server:
    """Accept connections on a bound socket."""
    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(factory, sock=sock, backlog=_BACKLOG)
    return await loop.create_server(factory, sock=sock, backlog=_BACKLOG)


def unsent(transport: asyncio.Transport) -> int:
    """Bytes that were written and that the peer has not taken yet, those that the kernel holds among them.

    The kernel holds megabytes and tells that there is room only when a third of it is free, so the
    transport's own buffer may stand still for long in front of a peer that is merely slow.
    """
    held = 0
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        with contextlib.suppress(OSError):  # a system that cannot tell
            held = int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return transport.get_write_buffer_size() + held


def ask_for_life(transport: asyncio.Transport) -> None:
    """Have the kernel find out soon whether the other end of a connection is still there; else it breaks.

    A host that knows nothing of the connection answers with a reset. Where the process stands still its
    kernel answers for it.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or sock.family == socket.AF_UNIX or sys.platform != "linux":
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _LIFE.items():
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection at once and with a reset, so that the other side takes nothing for a clean end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def _remove_stale_socket(path: str) -> None:
    """A socket file that a dead process left: nobody answers on it."""
    file = Path(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(file.stat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                file.unlink()


async def knock(
    host: str,
    port: int,
    timeout: float,  # noqa: ASYNC109
    tls: Trust | None = None,
    path: str = "",
) -> None:
    """Open a connection and close it again; raises as `connect`."""
    loop = asyncio.get_running_loop()
    closed = loop.create_future()

    class Knock(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            if not closed.done():
                closed.set_result(None)

    await connect(Knock, host, port, timeout, tls, path)
    await closed
