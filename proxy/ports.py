"""The bound sockets of one process: those of `listen` and of the admin listener, by their address.

New ones are open before old ones close. A socket that the service manager opened is taken from it.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy import net
from proxy.config import Address, Config


@dataclass(frozen=True, slots=True)
class Bound:
    """The sockets of a configuration; a name has one for each of its addresses."""

    clients: dict[Address, socket.socket] = field(default_factory=dict)
    admin: dict[Address, socket.socket] = field(default_factory=dict)

    @property
    def plain(self) -> frozenset[socket.socket]:
        """Those of clients that stay plain beside TLS."""
        return frozenset(sock for address, sock in self.clients.items() if address.plain)

    @property
    def all(self) -> set[socket.socket]:
        """Every one of them."""
        return {*self.clients.values(), *self.admin.values()}


class Ports:
    """Made by the app, which binds them before it serves."""

    def __init__(self) -> None:
        self.bound = Bound()
        self._inherited = net.Inherited({})  # nothing, until `bind` looks

    def bind(self, config: Config, otherwise: Config | None = None) -> Config:
        """Take all ports, or none; those that the service manager opened from it. Raises ListenError.

        Those of `otherwise` where not all can be had; returns the configuration whose ports they are.
        """
        self._inherited = net.Inherited()
        self._inherited.refuse_others([*config.listen, config.admin.listen])
        try:
            self.bound = self.opened(config)
        except net.ListenError:
            if otherwise is None:
                raise
            self.bound = self.opened(otherwise)
            return otherwise
        return config

    def opened(self, config: Config) -> Bound:
        """The sockets of a configuration, of which those that are not open yet are bound now, or none.

        Raises ListenError. They are in use after `use`.
        """
        clients: dict[Address, socket.socket] = {}
        try:
            clients = self._inherited.open(
                config.listen, config.socket, shared=config.reuse_port, there=self.bound.clients
            )
            admin = self._admin(config)
        except BaseException as error:
            self.discard(Bound(clients))
            if isinstance(error, net.ListenError):
                self._refuse_own(config)
            raise
        return Bound(clients, admin)

    def _admin(self, config: Config) -> dict[Address, socket.socket]:
        settings, there = config.admin, self.bound.admin
        try:
            return self._inherited.open([settings.listen], settings.socket, there=there)
        except net.PortTakenError as error:
            message = f"{error}; it is that of the admin listener, which another chainlit-proxy may have: "
            raise net.ListenError(message + "choose one with --admin or admin.listen") from None

    def _refuse_own(self, config: Config) -> None:
        """Raise ListenError where it is this process that has a port which could not be bound."""
        clients, admin = self.bound.clients, self.bound.admin
        for wanted, there in ((config.listen, clients), ((config.admin.listen,), admin)):
            for address in set(net.addresses(wanted)) - there.keys():
                for own in (*clients, *admin):
                    if address.collides_with(own):
                        raise net.ListenError(
                            f"cannot listen on {address} beside {own}, where this proxy listens until the "
                            "change is done: start it again"
                        )

    def permit(self, old: Config, new: Config, bound: Bound) -> None:
        """Let those connect to unix sockets who may now. Raises ListenError."""
        if new.socket != old.socket:
            self._inherited.permit(bound.clients, new.socket)
        if new.admin.socket != old.admin.socket:
            self._inherited.permit(bound.admin, new.admin.socket)

    def use(self, bound: Bound) -> None:
        """These are in use from now on, and the others are closed."""
        before, self.bound = self.bound, bound
        _close(before.all - bound.all)

    def discard(self, bound: Bound) -> None:
        """These are not to be used: what is not in use is closed."""
        _close(bound.all - self.bound.all)

    def close(self) -> None:
        """Give all of them up."""
        self.use(Bound())

    def __repr__(self) -> str:
        return f"<Ports {list(map(str, self.bound.clients))}>"


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
