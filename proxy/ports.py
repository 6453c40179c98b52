"""The bound sockets of one process: those of `listen`, by their address, and that of the admin listener.

New ones are open before old ones close. A socket that the service manager opened is taken from it.
"""

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy import net
from proxy.config import Address, Config


@dataclass(frozen=True, slots=True)
class Bound:
    """The sockets of a configuration."""

    clients: dict[Address, socket.socket] = field(default_factory=dict)
    admin: tuple[Address, socket.socket] | None = None  # set once the ports are bound

    @property
    def all(self) -> set[socket.socket]:
        """Every one of them."""
        return {*self.clients.values(), *([self.admin[1]] if self.admin else [])}


class Ports:
    """Made by the app, which binds them before it serves."""

    def __init__(self) -> None:
        self.bound = Bound()
        self._inherited = net.Inherited({})  # nothing, until `bind` looks

    def bind(self, config: Config) -> None:
        """Take all ports, or none; those that the service manager opened from it. Raises ListenError."""
        self._inherited = net.Inherited()
        self._inherited.refuse_others([*net.each_address(config.listen), config.admin.listen])
        self.bound = self.opened(config)

    def opened(self, config: Config) -> Bound:
        """The sockets of a configuration, of which those that are not open yet are bound now, or none.

        Raises ListenError. They are in use after `use`.
        """
        clients: dict[Address, socket.socket] = {}
        try:
            for address in net.each_address(config.listen):
                there = self.bound.clients.get(address)
                clients[address] = there or self._inherited.open(address, shared=config.reuse_port)
            admin, address = self.bound.admin, config.admin.listen
            if admin is None or admin[0] != address:
                admin = address, self._inherited.open(address)
        except BaseException:
            _close(Bound(clients).all - self.bound.all)
            raise
        return Bound(clients, admin)

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
