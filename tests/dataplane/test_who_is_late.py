"""A deadline belongs to who is late: the client that sends or reads, or the backend that it waits for."""

import asyncio
import contextlib

import pytest

from proxy.affinity.health import Observation
from proxy.errors import Limit
from tests.dataplane.frames import ACCEPT, upgrade
from tests.dataplane.peers import Cut, Peer, get, ok
from tests.dataplane.scripted import echo
from tests.dataplane.test_streaming import BOUND, LONG, held, send, upload_head
from tests.dataplane.world import World, run

SHORT, LONG_TIME = 0.5, 20.0  # seconds


def hits(world: World) -> dict[Limit, int]:
    """The limits that clients were over."""
    return {limit: count for limit, count in world.plane.site.stats.limits.items() if count}


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines are kept to a twentieth of a second."""
    monkeypatch.setattr("proxy.dataplane.plane._TICK", 0.05)


def test_an_upload_that_its_backend_does_not_take() -> None:
    """The client is held back by us, so it is the backend that is late: 504, and no limit was met."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upload_head(LONG))
        backend = await world.backend.accept()
        sending = asyncio.create_task(send(client, LONG))
        response = await client.response()
        assert response.status == 504
        assert hits(world) == {}
        assert world.suspected == []
        sending.cancel()
        await asyncio.wait([sending])
        with contextlib.suppress(Cut):
            await backend.read(LONG * 2)

    run(test, debug=False, timeouts={"body": SHORT, "response": 1.5})


def test_the_client_has_its_whole_time_again_when_it_may_go_on() -> None:
    """While it was held back its clock stood; then it is the one who is late: 408."""

    async def test(world: World) -> None:
        client = (await world.client()).say(upload_head(LONG))
        backend = await world.backend.accept()
        sending = asyncio.create_task(send(client, LONG // 2))
        connection = world.connection()
        await world.until(lambda: connection.leg.paused)
        await asyncio.sleep(2 * SHORT)
        assert hits(world) == {}
        await backend.head()
        came = 0
        while came < LONG // 2:
            came += len(await backend.some())
        await sending
        assert (await client.response()).status == 408
        assert hits(world) == {Limit.SLOW_BODY: 1}

    run(test, debug=False, timeouts={"body": SHORT, "response": LONG_TIME})


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_a_client_that_waits_for_leave(says: bytes) -> None:
    """With `Expect: 100-continue` it sends nothing until the backend says so (RFC 9110 section 10.1.1)."""

    async def test(world: World) -> None:
        fields = b"Content-Length: 9", b"Expect: 100-continue"
        client = (await world.client()).say(get(b"/x", *fields, method=b"POST"))
        backend = await world.backend.accept()
        await backend.head()
        backend.say(says)
        assert (await client.response()).status == 504
        assert hits(world) == {}

    run(test, timeouts={"body": SHORT, "response": 1.5})


def test_a_client_that_has_its_leave_and_says_nothing() -> None:
    """From the 100 on it is the client's turn."""

    async def test(world: World) -> None:
        fields = b"Content-Length: 9", b"Expect: 100-continue"
        client = (await world.client()).say(get(b"/x", *fields, method=b"POST"))
        backend = await world.backend.accept()
        await backend.head()
        backend.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert (await client.response()).status == 408
        assert hits(world) == {Limit.SLOW_BODY: 1}

    run(test, timeouts={"body": SHORT, "response": LONG_TIME})


def test_a_client_that_sends_without_leave() -> None:
    """It need not wait for a 100; whoever sends in pieces is late by a piece."""

    async def test(world: World) -> None:
        fields = b"Content-Length: 9", b"Expect: 100-continue"
        client = (await world.client()).say(get(b"/x", *fields, method=b"POST") + b"abc")
        backend = await world.backend.accept()
        await backend.until(b"abc")
        assert (await client.response()).status == 408
        assert hits(world) == {Limit.SLOW_BODY: 1}

    run(test, timeouts={"body": SHORT, "response": LONG_TIME})


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_body_that_goes_on_behind_the_head_of_its_answer(goes_on: bool) -> None:
    """Its client has as long for each piece as before; the answer itself may take any time."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(b"/x", b"Content-Length: 9", method=b"POST") + b"abc")
        backend = await world.backend.accept()
        await backend.until(b"abc")
        backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        assert (await client.head()).status == 200
        if not goes_on:
            with pytest.raises(Cut):
                await client.rest()
            assert hits(world) == {Limit.SLOW_BODY: 1}
            await backend.gone()
            return
        for piece in (b"de", b"fg", b"hi"):
            await asyncio.sleep(SHORT / 2)
            client.say(piece)
            assert await backend.read(2) == piece
        await asyncio.sleep(2 * SHORT)
        backend.say(b"llo")
        assert await client.read(5) == b"hello"
        assert hits(world) == {}

    run(test, timeouts={"body": SHORT, "response": LONG_TIME})


async def slow_download(world: World) -> tuple[Peer, Peer]:
    """A client that reads nothing of a long answer, and its backend."""
    client = (await world.client(slow=True)).say(get(b"/public/film"))
    backend = await world.backend.accept()
    await backend.request()
    backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG)
    backend.say(b"x" * LONG)
    return client, backend


def test_a_client_that_never_reads_its_answer() -> None:
    """It takes nothing for `timeouts.write`: it is cut off, which is counted."""

    async def test(world: World) -> None:
        _, backend = await slow_download(world)
        await world.until(lambda: hits(world) == {Limit.SLOW_READ: 1})
        await world.until(lambda: not world.plane.connections)
        await backend.gone()

    run(test, debug=False, timeouts={"write": SHORT})


def test_a_client_that_reads_no_interim_responses() -> None:
    """However many its backend sends, no more are read than the client takes."""

    async def test(world: World) -> None:
        client = (await world.client(slow=True)).say(get(b"/x"))
        backend = await world.backend.accept()
        await backend.request()
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </%b>\r\n\r\n" % (b"x" * 1000)
        backend.say(hint * 20_000)
        await world.until(lambda: held(world) > 65536)
        await asyncio.sleep(SHORT)
        assert world.upstream().leg.paused
        assert held(world) < BOUND
        client.reset()

    run(test, debug=False, narrow=True)


def test_a_client_that_reads_slowly_is_not_late() -> None:
    """Whatever it takes begins its time anew."""

    async def test(world: World) -> None:
        client, _ = await slow_download(world)
        for _ in range(20):
            await client.some()
            await asyncio.sleep(SHORT / 4)
        assert hits(world) == {}
        assert len(world.plane.connections) == 1

    run(test, debug=False, timeouts={"write": 2 * SHORT})


@pytest.mark.parametrize("fields", [(), (b"Connection: close",)], ids=["kept", "closed"])
def test_a_client_that_reads_the_end_slowly(fields: tuple[bytes, ...]) -> None:
    """An answer that has left its backend is not cut off while its client goes on taking it."""

    async def test(world: World) -> None:
        client = (await world.client(slow=True)).say(get(b"/", *fields))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"x" * 60_000))
        await client.head()
        for piece in range(40):
            await client.read(1500)
            await asyncio.sleep(SHORT / 8)
            if piece == 25:
                assert [record.status for record in world.ended] == [200]
                assert hits(world) == {}  # nor is it idle meanwhile
        await client.gone()
        assert hits(world) == ({} if fields else {Limit.IDLE: 1})

    run(test, narrow=True, debug=False, timeouts={"write": SHORT, "idle": SHORT})


def test_a_websocket_that_is_never_read() -> None:
    """It holds its backend back for no longer than an answer would."""

    async def test(world: World) -> None:
        client = (await world.client(slow=True)).say(upgrade(b"/ws"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ACCEPT)
        assert (await client.response()).status == 101
        backend.say(b"x" * LONG)
        await world.until(lambda: hits(world) == {Limit.SLOW_READ: 1})
        await world.until(lambda: not world.plane.tunnels)
        await backend.gone()

    run(test, debug=False, timeouts={"write": SHORT})


def test_a_slow_client_does_not_slow_the_next_one_down() -> None:
    """A connection to the backend that goes back to its pool is read, whoever was slow before."""

    async def test(world: World) -> None:
        slow = await world.client(slow=True)
        await world.until(lambda: world.plane.connections)
        connection = world.connection()
        connection.transport.set_write_buffer_limits(high=1000)
        slow.say(get(b"/long"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"x" * 30_000))
        await world.until(lambda: world.plane.site.pool(world.known("a")).has_idle)
        assert not connection.leg.writable
        assert not world.upstream().leg.paused
        client = (await world.client()).say(get(b"/next"))
        assert (await backend.request()).target == b"/next"
        backend.say(ok(b"next"))
        assert (await client.response()).body == b"next"
        slow.reset()

    run(test, debug=False, narrow=True)


def test_a_page_does_not_wait_for_a_backend_that_hangs() -> None:
    """A GET without a session goes where sessions are taken, whatever its pin says; a POST waits for it."""

    async def test(world: World) -> None:
        for backend in world.backends:
            backend.serve(echo)
        for _ in range(3):
            world.observe("a", Observation.SILENT)
        for request in (get(b"/", world.cookie("a")), get(b"/", world.cookie("a"), method=b"HEAD")):
            client = (await world.client()).say(request)
            assert (await client.head()).status == 200
        assert [len(backend.requests) for backend in world.backends] == [0, 2]
        fields = world.cookie("a"), b"Content-Length: 1"
        client = (await world.client()).say(get(b"/own", *fields, method=b"POST") + b"x")
        assert (await client.response()).status == 200
        assert [len(backend.requests) for backend in world.backends] == [1, 2]

    run(test, "ab")
