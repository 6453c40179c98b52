"""The only place that opens sockets: listeners, and connections to backends; or takes over open ones."""

import asyncio
import contextlib
import errno
import grp
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from proxy import names
from proxy.config import Address
from proxy.config.sections import SocketSettings
from proxy.errors import ConnectFailed, ConnectRefused, ConnectTimeout, HandshakeFailed, ProxyError
from proxy.names import Names
from proxy.steering import spread
from proxy.tls import Trust

P = TypeVar("P", bound=asyncio.BaseProtocol)

_BACKLOG = 1024
_STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)  # of a socket that does not block
_FIRST_INHERITED = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START
# Ours to blame, not the backend's: descriptors, memory or local ports have run out.
_OWN_FAULT = frozenset((errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM))
# All that says for sure that a backend is not there; the second is that of a socket file.
_NOBODY_LISTENS = frozenset((errno.ECONNREFUSED, errno.ENOENT))
_ON_ITS_WAY = frozenset((errno.EINPROGRESS, errno.EALREADY, errno.EINTR))
_NO_IPV6 = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))
_ANYBODY = SocketSettings()
_NAMES = Names()  # one for the process, as the system's resolver is


class ListenError(Exception):
    """An address cannot be listened on; the text says which and why."""


class PortTakenError(ListenError):
    """Another process has the port."""


def is_address(host: str) -> bool:
    """Whether it is the address of a host itself, which `reach` takes, and no name."""
    return "%" not in host and names.is_address(host)  # one with a zone has to be looked up


def begin(host: str) -> socket.socket:
    """A socket for `reach`, not blocking. Raises ProxyError if this machine is out of something."""
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, _STREAM)
    except OSError as error:
        raise _failure(error, host) from error
    if sock.gettimeout() is None:
        sock.setblocking(False)  # a system that cannot make one so
    return sock


def reach(sock: socket.socket, host: str, port: int) -> bool:
    """Have a socket connect to an address, or look whether it has, at a second call: then it is True.

    A backend on this machine is there, or has refused, by the second call at once: nobody need wait until the
    socket can be written. Raises as `connect`.
    """
    met = sock.connect_ex((host, port))
    if met in _ON_ITS_WAY:
        return False
    if met not in (0, errno.EISCONN):
        raise _failure(OSError(met, ""), _where(host, port))
    return True


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
    end, where = loop.time() + timeout, _where(host, port)
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


def last_address(host: str) -> str:
    """Where a connection to a host was last opened to, "" if none was."""
    return _NAMES.last(host)


def _where(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


def addresses(listen: Iterable[Address]) -> list[Address]:
    """What is listened on: a name is all the addresses that it has on this machine, each of them once."""
    return list(dict.fromkeys(each for address in listen for each in _addresses_here(address)))


def _addresses_here(address: Address) -> list[Address]:
    if address.is_unix:
        return [address]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return [address]  # `bind` says what is wrong
    here = []
    for family, *_, where in sorted(found):  # IPv4 first: more people can read it
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((where[0], 0))  # as no ::1 can be where IPv6 is off, which names have all the same
            here.append(replace(address, host=str(where[0])))
    # A port of the system's choice is another one for each.
    return (here if address.port else here[:1]) or [address]


def bind(address: Address, *, shared: bool = False, access: SocketSettings = _ANYBODY) -> socket.socket:
    """A bound and listening socket, not blocking; of a name's addresses the first. Raises ListenError.

    Other processes may listen on the same port if all of them bind it `shared`; `access` says who may connect
    to a unix socket.
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
            if address.is_unix:
                with contextlib.suppress(OSError):  # Linux goes by it, so that nobody else gets in meanwhile
                    os.fchmod(sock.fileno(), access.bits)
            sock.bind(where)
            if address.is_unix:
                _permit(address, access, give_up=Path(address.path).unlink)
            sock.listen(_BACKLOG)
            if shared and not address.is_unix:
                spread(sock)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except UnicodeError:  # as in `connect`
        raise ListenError(f"cannot listen on {address}: {address.host} is not a host name") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE and not address.is_unix:
            raise PortTakenError(f"cannot listen on {address}: the port is taken") from None
        if error.errno == errno.EADDRINUSE:
            reason = "the socket is in use"
        raise ListenError(f"cannot listen on {address}: {reason}") from None
    return sock


def _permit(address: Address, access: SocketSettings, give_up: Callable[[], None] = lambda: None) -> None:
    """Let those connect to a unix socket whom `access` names. Raises ListenError, after `give_up`."""
    if access.group is not None:
        try:
            os.chown(address.path, -1, grp.getgrnam(access.group).gr_gid)
        except (KeyError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else "this machine has no such group"
            give_up()
            raise ListenError(f"{address} cannot be given to the group {access.group}: {why}") from None
    Path(address.path).chmod(access.bits)


class Inherited:
    """Listening sockets that the service manager opened, by systemd's protocol (sd_listen_fds(3)).

    Created once, before anything else is started: what is taken over is not handed on to replicas. They stay
    open here as long as the process lives, as they do at the service manager; what is handed out is a second
    descriptor of the same socket, so that an address may be given up by a reload and taken again.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Raises ListenError if one is no listening stream socket, or nobody can tell how many there are."""
        mine = environ.get("LISTEN_PID") == str(os.getpid())
        told = environ.get("LISTEN_FDS", "0") if mine else "0"
        if not told.isdecimal():
            raise ListenError(f"LISTEN_FDS: must be a number of sockets (got {told!r})")
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environ.pop(name, None)
        self._sockets = [_adopt(_FIRST_INHERITED + number) for number in range(int(told))]

    def open(
        self,
        listen: Iterable[Address],
        access: SocketSettings,
        *,
        shared: bool = False,
        there: Mapping[Address, socket.socket] = MappingProxyType({}),
    ) -> dict[Address, socket.socket]:
        """Listen on all of these, each address of a name, or on none; raises as `bind`.

        Those that are `there` are taken as they are, as are sockets that were handed over.
        """
        opened: dict[Address, socket.socket] = {}
        try:
            for address in addresses(listen):
                opened[address] = there.get(address) or self._open(address, access, shared=shared)
        except BaseException:
            for sock in {*opened.values()} - {*there.values()}:
                sock.close()
            raise
        return opened

    def _open(self, address: Address, access: SocketSettings, *, shared: bool) -> socket.socket:
        for sock in self._sockets:
            if _listens_on(sock, address):
                return sock.dup()
        return bind(address, shared=shared, access=access)

    def permit(self, listen: Iterable[Address], access: SocketSettings) -> None:
        """Let others connect to unix sockets of our own from now on. Raises ListenError."""
        for address in listen:
            if address.is_unix and not any(_listens_on(sock, address) for sock in self._sockets):
                _permit(address, access)

    def refuse_others(self, listen: Iterable[Address]) -> None:
        """Raise ListenError if a socket was handed over that is none of these: nobody would answer there."""
        wanted = list(listen)
        for sock in self._sockets:
            if not any(_listens_on(sock, address) for address in addresses(wanted)):
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
        raise ListenError(
            f"the socket handed over as descriptor {descriptor} cannot be used: {error.strerror}"
        ) from None
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
