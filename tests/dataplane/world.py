"""A whole proxy in this process, between raw clients and scripted backends.

`run` gives a test its `World` on a uvloop in debug mode. When the test is over, everybody hangs up, and the
proxy has to be as it was before: no connection, tunnel, task or socket is left, no session is counted,
every exchange was counted once, nothing was logged as an error, and no border had to hold anything.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

from proxy import borders, net
from proxy.affinity.backend import Backend as Known
from proxy.affinity.health import Observation
from proxy.config import Address, Config
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.record import Record
from proxy.dataplane.upstream import Upstream
from proxy.parts import Parts
from tests.dataplane.frames import ACCEPT, Socket, upgrade
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import SMALL, WAIT, Message, Peer, get, ok
from tests.dataplane.scripted import Backend
from tests.support.waiting import eventually

NARROW = 4096  # bytes: the kernel doubles it
LATER = 1e6  # seconds: by then everything has expired


class Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """As Handler."""
        self.texts.append(self.format(record))


class World:
    """One proxy, its backends and its clients."""

    def __init__(self, names: str, settings: dict[str, Any], errors: Errors) -> None:
        self.errors = errors
        self.backends = [Backend(name) for name in names]
        urls = [{"name": b.name, "url": f"http://127.0.0.1:{b.port}"} for b in self.backends]
        self.parts = Parts(Config.model_validate({"log": {"access": False}, "backends": urls, **settings}))
        self.plane = self.parts.plane
        self.router = self.parts.router
        self.ended: list[Record] = []
        self.plane.site.access = self.ended.append
        self.suspected: list[str] = []
        self.plane.site.suspect = lambda backend: self.suspected.append(backend.name)
        self.clients: list[Peer] = []
        self.faults = 0  # mistakes of the proxy that the test brings about
        self.guests = 0  # connections to the proxy that a test made by other means
        self.address: tuple[str, int] = ("", 0)
        self._task: asyncio.Task[None] | None = None

    @property
    def backend(self) -> Backend:
        """The first one."""
        return self.backends[0]

    def known(self, name: str) -> Known:
        """What the proxy knows a backend as."""
        backend = self.parts.fleet.get(name)
        assert backend is not None
        return backend

    def pin(self, name: str) -> bytes:
        """The token of a backend."""
        return self.known(name).token

    def cookie(self, name: str) -> bytes:
        """The field that sends what has no session to a backend."""
        return b"Cookie: chainlit_pin=" + self.pin(name)

    def now(self) -> float:
        """The proxy's clock."""
        return monotonic()

    def stand_still(self, seconds: float) -> None:
        """This process does not run for a while, and nobody else in it."""
        self.parts.standstill.measure(monotonic())
        time.sleep(seconds)

    async def as_it_reads(self, work: Callable[[], object]) -> None:
        """Do it while the loop reads: what comes meanwhile is read when it has looked at its timers."""
        loop, (one, other) = asyncio.get_running_loop(), socket.socketpair()
        done = asyncio.Event()

        def read() -> None:
            loop.remove_reader(one)
            done.set()
            work()

        with one, other:
            loop.add_reader(one, read)
            other.send(b"now")
            await done.wait()

    def observe(self, name: str, observation: Observation) -> None:
        """Something was observed of a backend."""
        self.parts.fleet.observe(self.known(name), observation, monotonic())

    async def start(self, *, healthy: bool, narrow: bool, shared: bool) -> None:
        """Start everything; healthy backends have answered, narrow sockets hold next to nothing.

        Others may listen on a shared port.
        """
        for backend in self.backends:
            await backend.listen()
            if healthy:
                self.observe(backend.name, Observation.ANSWERED)
        sock = self.listening = net.bind(Address("127.0.0.1", 0), shared=shared)
        if narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NARROW)
        self.address = sock.getsockname()[:2]
        plane = self.plane
        self._task = asyncio.create_task(plane.run([sock]))
        await self.until(lambda: plane.listeners._servers)

    def connection(self) -> Downstream:
        """The only connection of a client, in HTTP/1.1."""
        (connection,) = self.plane.connections
        assert isinstance(connection, Downstream)
        return connection

    def upstream(self) -> Upstream:
        """The only connection to a backend."""
        (upstream,) = (upstream for pool in self.plane.site._pools.values() for upstream in pool._all)
        return upstream

    async def websocket(self, path: bytes = b"/ws") -> tuple[Socket, Socket]:
        """Both sides of a new websocket: the client's and the backend's."""
        client = (await self.client()).say(upgrade(path))
        backend = await self.backend.accept()
        await backend.request()
        backend.say(ACCEPT)
        assert (await client.response()).status == 101
        return Socket(client, client=True), Socket(backend, client=False)

    async def client(self, *, slow: bool = False) -> Peer:
        """A new connection to the proxy; a slow one takes next to nothing that its test does not read."""
        sock = socket.socket()
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=NARROW if slow else SMALL)
        self.clients.append(Peer(reader, writer))
        await self.until(lambda: self.plane.site.stats.connections == len(self.clients))
        return self.clients[-1]

    async def ask(self, request: bytes, *, to_head: bool = False) -> Message:
        """What one request on a connection of its own is answered."""
        client = await self.client()
        answer = await client.say(request).response(to_head=to_head)
        client.close()
        return answer

    async def breathe(self) -> None:
        """Let everybody do what there is to do now: for variety, nothing may depend on it."""
        for _ in range(3):
            await asyncio.sleep(0)

    async def until(self, question: Callable[[], object], what: str = "") -> None:
        """Wait until something is so in the proxy."""
        await eventually(question, WAIT, lambda: f"{what} {self.plane!r} {self.router!r}")

    async def ask_through(self, backend: Peer) -> None:
        """One request and its answer, over a connection to the backend that is open."""
        client = (await self.client()).say(get(b"/again"))
        assert (await backend.request()).target == b"/again"
        backend.say(ok(b"again"))
        assert (await client.response()).body == b"again"

    async def finish(self) -> None:
        """Hang up, and look at what is left."""
        plane, router = self.plane, self.router
        for client in self.clients:
            client.reset()
        await self.until(lambda: not plane.connections and not plane.tunnels, "connections stay open")
        plane.site.lingers.end_all()
        await self.until(self._pools_are_idle, "connections to backends are still in use")
        for table in (router.engines._named, router.engines._bare):
            for engine in table.values():
                assert (engine.polls, engine.tunnels) == (0, 0), engine
        router.sweep(monotonic() + LATER)  # transports end, and so begin the last hours of their sessions
        for known in router.fleet:
            assert (known.sessions, known.tunnels, known.unanswered) == (0, 0, 0), known
        router.sweep(monotonic() + 2 * LATER)
        assert (len(router.engines), len(router.directory)) == (0, 0), router
        self._check_counters()
        for pool in plane.site._pools.values():
            pool.close_all()
        await self.until(lambda: not any(pool._all for pool in plane.site._pools.values()), "pools stay open")
        await self.end()
        await self.until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "tasks stay")

    async def stop(self) -> None:
        """Stop the proxy."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def end(self) -> None:
        """Stop everything; also after a failure."""
        await self.stop()
        for backend in self.backends:
            await backend.end()
        for client in self.clients:
            client.writer.transport.abort()
        await self.breathe()

    def _pools_are_idle(self) -> bool:
        pools = self.plane.site._pools.values()
        return all(set(pool._idle) == pool._all and not pool.passengers for pool in pools)

    def _check_counters(self) -> None:
        stats = self.plane.site.stats
        assert len({id(exchange) for exchange in self.ended}) == len(self.ended)
        counted = sum(stats.requests.values())
        refused = counted - len(self.ended)
        assert 0 <= refused <= stats.requests["", "other", 4], (stats.requests, self.ended)
        by_status = Counter(exchange.status // 100 for exchange in self.ended)
        assert sum(count for (_, _, code), count in stats.requests.items() if code == 1) == by_status[1]
        assert stats.tunnels == by_status[1]
        assert stats.connections == len(self.clients) + self.guests


Test = Callable[[World], Awaitable[None]]


def run(
    test: Test,
    names: str = "a",
    *,
    healthy: bool = True,
    debug: bool = True,
    narrow: bool = False,
    shared: bool = False,
    **settings: Any,
) -> None:
    """Run a test with backends of these one-letter names; `settings` are sections of the configuration."""
    errors = Errors()
    strange: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: strange.append(repr(context)))
        before, faults = _sockets(), borders.counts.copy()
        borders._quiet_until.clear()
        world = World(names, settings, errors)
        await world.start(healthy=healthy, narrow=narrow, shared=shared)
        try:
            await test(world)
            await world.finish()
        finally:
            await world.end()
        await eventually(lambda: _sockets() <= before, WAIT, lambda: f"{_sockets() - before} stay open")
        assert strange == []
        assert sum(borders.counts.values()) - sum(faults.values()) == world.faults, errors.texts
        assert errors.texts == [] or world.faults

    logging.getLogger("proxy").addHandler(errors)
    try:
        run_loop(main(), debug=debug)
    finally:
        logging.getLogger("proxy").removeHandler(errors)


def _sockets() -> set[str]:
    """The sockets that are open in this process."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add(str(descriptor.readlink()))
    return {name for name in found if name.startswith("socket:")}
