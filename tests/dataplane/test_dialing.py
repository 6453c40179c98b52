"""Connections to backends, as exchanges open them: on this machine at once, elsewhere when they are there."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import cast

import pytest

from proxy import net
from proxy.borders import Where, counts
from proxy.dataplane import dialing
from proxy.dataplane.dialing import Dial, dial
from proxy.dataplane.upstream import Upstream
from proxy.errors import ConnectFailed, ConnectRefused, ConnectTimeout, ProxyError, UpstreamClosed
from tests.dataplane.peers import WAIT, get
from tests.dataplane.world import World, run

GAP = 2.5  # seconds: longer than the time below; the kernel asks once more after three at the latest


class Told:
    """Waits for what comes of a connection."""

    def __init__(self, world: World, act: Callable[[], None] = lambda: None) -> None:
        """`act` is done when it is told."""
        self.times = 0
        self.gave_up = 0
        self._act = act
        self._got: asyncio.Future[Upstream | ProxyError] = asyncio.get_running_loop().create_future()
        self.pool = world.plane.site.pool(world.known("a"))
        self.dial: Dial = dial(world.plane.site, self.pool, self._tell, self._give_up)

    def _tell(self, got: Upstream | ProxyError) -> None:
        self.times += 1
        self._got.set_result(got)
        self._act()

    def _give_up(self) -> None:
        self.gave_up += 1

    async def upstream(self) -> Upstream:
        """The connection."""
        async with asyncio.timeout(WAIT):
            got = await self._got
        assert isinstance(got, Upstream), got
        return got

    async def error(self) -> ProxyError:
        """Why there is none."""
        async with asyncio.timeout(WAIT):
            got = await self._got
        assert isinstance(got, ProxyError), got
        return got


def test_who_asks_is_told_later() -> None:
    """Not while it asks, so that whoever is told of an error may try elsewhere at once; and once."""

    async def test(world: World) -> None:
        told = Told(world)
        assert not told.times
        upstream = await told.upstream()
        await world.backend.accept()
        assert not upstream.reused
        assert sum(told.pool.connect_seconds.counts) == 1
        world.backend.refuse()
        refused = Told(world)
        assert not refused.times
        error = await refused.error()
        assert isinstance(error, ConnectRefused)
        assert error.reason == f"nobody listens at 127.0.0.1:{world.backend.port} (connection refused)"
        told.pool.freed(upstream)
        assert (told.times, refused.times) == (1, 1)

    run(test)


def test_a_backend_that_is_not_there_at_once() -> None:
    """One whose queue is full gets its time; it is taken when there is room."""

    async def test(world: World) -> None:
        await world.backend.stall()
        told = Told(world)
        await world.breathe()
        assert "waiting" in repr(told.dial)
        await world.backend.listen()
        told.pool.freed(await told.upstream())
        assert "making" in repr(told.dial)

    run(test)


def test_a_backend_that_does_not_accept_in_time() -> None:
    """It may only be slow, which is another error than that nobody listens."""

    async def test(world: World) -> None:
        await world.backend.stall()
        error = await Told(world).error()
        assert isinstance(error, ConnectTimeout)
        assert error.reason == "no connection within 0.05 s"

    run(test, timeouts={"connect": 0.05})


def test_a_process_that_stood_still() -> None:
    """What it missed of a backend's time that has."""

    async def test(world: World) -> None:
        await world.backend.stall()
        told = Told(world)
        await world.breathe()
        world.stand_still(GAP)
        await world.breathe()
        await world.backend.listen()
        told.pool.freed(await told.upstream())

    run(test, timeouts={"connect": 2.0})


def test_a_backend_that_refuses_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes of the way there is an error of the connection, whatever it is."""
    answers = [errno.EINPROGRESS, errno.EALREADY, errno.EALREADY, errno.EHOSTUNREACH]
    real = net.reach

    class Distant:
        """The socket of a backend on another machine."""

        def connect_ex(self, _: object) -> int:
            return answers.pop(0)

    monkeypatch.setattr(
        net, "reach", lambda _, host, port: real(cast("socket.socket", Distant()), host, port)
    )

    async def test(world: World) -> None:
        # The socket itself is connected to nobody, so it can be written to: it is looked at until it tells.
        error = await Told(world).error()
        assert type(error) is ConnectFailed
        assert error.reason.startswith("no connection to 127.0.0.1:")
        assert error.reason.endswith(": no route to host")
        assert not answers

    run(test)


@pytest.mark.parametrize("turns", [0, 1])
def test_nobody_wants_it_any_more(turns: int) -> None:
    """Whoever cancels is told of nothing, and the backend sees the end of the connection."""

    async def test(world: World) -> None:
        told = Told(world)
        for _ in range(turns):
            await asyncio.sleep(0)
        told.dial.cancel()
        await (await world.backend.accept()).gone()
        assert not told.times
        assert not told.pool._all

    run(test)


@pytest.mark.parametrize("refuses", [False, True])
def test_nobody_wants_it_while_it_is_on_its_way(refuses: bool) -> None:
    """Its socket is closed; an error that is about to be told is not told."""

    async def test(world: World) -> None:
        if refuses:
            world.backend.refuse()
        else:
            await world.backend.stall()
        told = Told(world)
        told.dial.cancel()
        told.dial.cancel()
        await world.breathe()
        assert not told.times

    run(test, timeouts={"connect": 0.05})


def test_a_client_that_leaves_while_its_backend_is_dialled() -> None:
    """Nothing of its request reaches the backend."""

    async def test(world: World) -> None:
        await world.backend.stall()
        client = (await world.client()).say(get())
        await world.until(lambda: any(connection.exchange for connection in world.plane.connections))
        client.reset()
        await world.until(lambda: not world.plane.connections)
        assert world.ended[0].status == 0
        assert dict(world.plane.site.stats.upstream_errors) == {}

    run(test)


def test_a_mistake_of_ours_when_it_is_told() -> None:
    """It is held and counted, and whoever waits for the connection gives up."""

    async def test(world: World) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        before = counts[Where.TASK]
        told = Told(world, fail)
        upstream = await told.upstream()
        assert (told.gave_up, counts[Where.TASK] - before) == (1, 1)
        assert "ZeroDivisionError" in world.errors.texts.pop()
        told.pool.freed(upstream)
        world.faults = 1

    run(test)


@pytest.mark.interpreted
def test_a_connection_that_is_over_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take no request, nor tell that it is lost: its backend closed it as it accepted."""

    class Closed(Upstream):
        """Is closed in the same turn."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.abort()

    monkeypatch.setattr(dialing, "Upstream", Closed)

    async def test(world: World) -> None:
        told = Told(world)
        assert isinstance(await told.error(), UpstreamClosed)
        assert not told.pool._all

    run(test)


def test_many_at_once_are_refused() -> None:
    """However many backends refuse, each is tried from the loop, and then the client is told."""

    async def test(world: World) -> None:
        for backend in world.backends:
            backend.refuse()
        response = await world.ask(get())
        assert response.status == 503
        assert len(world.plane.site.stats.upstream_errors) == len(world.backends)

    run(test, "abcdefghij", affinity={"hold": 0})
