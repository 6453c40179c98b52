"""Borders: one item's mistake costs that item; the others, the loop and the process go on."""

import asyncio
import contextlib
import logging
from typing import Any, cast

import pytest
import uvloop

from proxy import borders
from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.untaken import NOTHING
from proxy.borders import Border, Where, guarded, kept, on_loop_error
from proxy.controlplane.drains import Drains
from proxy.dataplane.downstream import Downstream
from proxy.dataplane.tunnel import Tunnel
from tests.controlplane.scripted_moves import ScriptedMoves
from tests.dataplane.peers import get, ok
from tests.dataplane.world import World, run


class Broken:
    """Whatever is asked of it fails; keeps what was asked. Nothing is kept for it."""

    kept = waiting_client = None
    untaken = NOTHING

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object) -> None:
            self.asked.append(name)
            raise RuntimeError(name)

        return fail


def counted(where: Where) -> int:
    """How many mistakes one place has held."""
    return borders.counts[where]


def test_a_border_counts_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """The first mistake of a place is logged with its traceback, those that follow at once are counted."""
    borders._quiet_until.clear()
    before = counted(Where.POOL)
    with caplog.at_level(logging.ERROR, "proxy"):
        for _ in range(3):
            with Border(Where.POOL):
                raise ValueError("odd")
    assert counted(Where.POOL) == before + 3
    (record,) = caplog.records
    assert "internal error (pool)" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_what_ends_a_task_passes(error: type[BaseException]) -> None:
    """Cancellation and the end of the process are no mistakes."""
    before = counted(Where.TICK)
    with pytest.raises(error), Border(Where.TICK):
        raise error
    assert counted(Where.TICK) == before


def test_one_listener_of_the_fleet_does_not_stop_the_others() -> None:
    """Who is told of a change may fail; the others are told, and whoever observed goes on."""
    fleet = Fleet(HealthRules(fall=1, rise=1, evict_after=1))
    told: list[str] = []
    fleet.listen(guarded(Where.LISTENER, Broken().tell))
    fleet.listen(lambda _, event: told.append(event))
    before = counted(Where.LISTENER)
    fleet.set_admin_state(fleet.add("a", "h", 1, now=0), AdminState.DRAIN)
    assert told == ["is set to drain"]
    assert counted(Where.LISTENER) == before + 1


@pytest.mark.interpreted
def test_the_ticker_goes_on() -> None:
    """A connection and a tunnel whose deadlines cannot be kept are ended; others' deadlines are kept."""

    async def test(world: World) -> None:
        plane, broken, tunnel = world.plane, Broken(), Broken()
        idle = await world.client()
        plane.connections.add(cast("Downstream", broken))
        plane.tunnels.add(cast("Tunnel", tunnel))
        await world.until(lambda: "cut" in tunnel.asked)
        assert broken.asked == ["tick", "cut"]
        plane.connections.discard(cast("Downstream", broken))
        plane.tunnels.discard(cast("Tunnel", tunnel))
        await idle.gone()
        world.faults = 4 * tunnel.asked.count("tick")

    run(test, timeouts={"idle": 1, "head": 1})


def test_a_backend_that_is_down_ends_all_of_its_connections() -> None:
    """One that cannot be ended does not keep the others open."""

    async def test(world: World) -> None:
        pool, broken = world.plane.site.pool(world.known("a")), [Broken(), Broken()]
        for passenger in broken:
            pool.passengers.add(cast("Tunnel", passenger))
        pool.close_all()
        assert [passenger.asked for passenger in broken] == [["backend_lost"], ["backend_lost"]]
        pool.passengers.clear()
        world.faults = 2

    run(test)


def test_a_task_that_fails_is_given_up() -> None:
    """Whoever waits for it is told; the next request is served."""

    async def test(world: World) -> None:
        async def odd() -> None:
            raise ValueError("odd")

        ended = asyncio.Event()
        await world.plane.site.spawn(odd, ended.set)
        assert ended.is_set()
        world.faults = 1
        client = (await world.client()).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test)


@pytest.mark.parametrize("where", ["data_received", "eof_received", "connection_lost", "pause_writing"])
def test_a_callback_that_fails_costs_its_own_connection(where: str) -> None:
    """The loop goes on, the mistake is counted, and the connection does not stay open for ever."""

    class Odd(asyncio.Protocol):
        def _may_fail(self, name: str) -> None:
            if name == where:
                raise ValueError(name)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:
            self._may_fail("data_received")
            if where == "pause_writing":
                self.transport.write(bytes(50_000_000))

        def eof_received(self) -> None:
            self._may_fail("eof_received")

        def connection_lost(self, exc: Exception | None) -> None:
            self._may_fail("connection_lost")

        def pause_writing(self) -> None:
            self._may_fail("pause_writing")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        counting = asyncio.Event()

        def handle(of: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            on_loop_error(of, context)
            counting.set()

        loop.set_exception_handler(handle)
        before = counted(Where.LOOP)
        server = await loop.create_server(Odd, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        if where in {"eof_received", "connection_lost"}:
            writer.write_eof()
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                while await reader.read(65536):
                    pass
            await counting.wait()
        writer.close()
        server.close()
        assert counted(Where.LOOP) == before + 1

    uvloop.run(main())


def test_a_client_that_cannot_be_begun_is_let_go() -> None:
    """The loop would leave its connection open for ever: nobody would serve or end it."""

    class Transport(asyncio.Transport):
        aborted = False

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            raise RuntimeError(name)

        def abort(self) -> None:
            self.aborted = True

    async def test(world: World) -> None:
        transport = Transport()
        with pytest.raises(RuntimeError):
            Downstream(world.plane.site, world.plane).connection_made(transport)
        assert transport.aborted

    run(test)


def test_an_error_of_the_system_is_no_mistake() -> None:
    """A machine that is out of descriptors is logged, and not counted as a mistake of ours."""
    before = counted(Where.LOOP)
    loop = asyncio.new_event_loop()
    on_loop_error(loop, {"message": "accept", "exception": OSError(24, "Too many open files")})
    loop.close()
    assert counted(Where.LOOP) == before


def test_one_drain_does_not_stop_the_others() -> None:
    """A backend that cannot be looked at stays; the others are emptied, and the loop runs on."""

    class Moves(ScriptedMoves):
        def is_empty(self, backend: Backend) -> bool:
            if backend.name == "odd":
                raise RuntimeError("odd")
            return True

    async def main() -> None:
        fleet = Fleet(HealthRules(fall=1, rise=1, evict_after=1))
        odd, good = (fleet.add(name, "h", port, now=0) for port, name in enumerate(("odd", "good"), 1))
        for backend in (odd, good):
            fleet.observe(backend, Observation.ANSWERED, 0)
        drains, before = Drains(fleet, Moves(), patience=60), counted(Where.DRAIN)
        running = asyncio.create_task(drains.run())
        drains.drain(odd)
        async with asyncio.timeout(5):
            await drains.until_empty(good)
        assert not running.done()
        assert counted(Where.DRAIN) > before
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())


def test_a_task_of_the_control_plane_runs_again() -> None:
    """A mistake that ends it as a whole costs a moment, not the process."""

    async def main() -> None:
        again, before = asyncio.Event(), counted(Where.CONTROL)

        async def work() -> None:
            if counted(Where.CONTROL) == before:
                raise ExceptionGroup("odd", [ValueError("odd")])
            again.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(kept(work))
        async with asyncio.timeout(5):
            await again.wait()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    asyncio.run(main())
