"""A backend whose app blocks its event loop: slow is not dead, and its users keep their sessions."""

import pytest

from proxy import net
from proxy.affinity.health import Observation, Verdict
from proxy.names import Names
from tests.dataplane.chat import PATH, Tab, chats, connect_packet
from tests.dataplane.peers import get, ok
from tests.dataplane.world import World, run

CONNECT = connect_packet("session-S")


def degrade(world: World, name: str) -> None:
    """The probes of a backend go unanswered."""
    for _ in range(3):
        world.observe(name, Observation.SILENT)
    assert world.known(name).health.verdict is Verdict.DEGRADED


async def session(world: World) -> Tab:
    """A tab whose session is open at a."""
    tab = Tab(world, world.cookie("a"))
    await tab.handshake()
    await (await tab.post(CONNECT)).response()
    await tab.listen(b'40{"sid":"a"}')
    return tab


def test_requests_of_pinned_sessions_wait() -> None:
    """Polls, messages and uploads of a blocked backend's sessions wait for it and are answered by it."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await session(world)
        gate = instances["a"].hold("post")
        degrade(world, "a")
        sent = await tab.post(b'42["hi"]')
        upload = (await world.client()).say(get(b"/project/file/x?session_id=session-S"))
        await world.until(lambda: instances["a"].asked("locate"))
        assert (await upload.response()).status == 404
        gate.set()
        assert (await sent.response()).status == 200
        await tab.listen(b'42["echo","a"]')
        assert instances["b"].heard == []

    run(test, "ab")


def test_nobody_new_is_placed_there() -> None:
    """A new browser, and one whose pin is for the blocked backend, begin elsewhere."""

    async def test(world: World) -> None:
        instances = chats(world)
        await session(world)
        degrade(world, "a")
        for field in (world.cookie("a"), b"X-None: 1"):
            await Tab(world, field).handshake()
        assert len(instances["b"].asked("handshake")) == 2

    run(test, "ab")


def test_tunnels_of_a_blocked_backend_stay_open() -> None:
    """A websocket to a degraded backend is not touched."""

    async def test(world: World) -> None:
        chats(world)
        tab = await session(world)
        socket = await tab.socket()
        degrade(world, "a")
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"

    run(test, "ab")


def test_pinned_requests_wait_while_a_name_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows how the backend is: it stays as it is, and so does its session; tries have a pause."""
    answers: list[str] = []
    monkeypatch.setattr(net, "_NAMES", Names(lambda _: answers))

    async def test(world: World) -> None:
        chats(world)
        tab = await session(world)
        known = world.known("a")
        world.plane.site.moved(known)
        known.host = "a.test"
        sent = await tab.post(b'42["hi"]')
        stranger = (await world.client()).say(get(b"/project/translations", world.cookie("a")))
        assert (await stranger.response()).status == 200
        assert world.backends[1].requests, "what belongs nowhere goes elsewhere"
        await world.until(lambda: world.plane.site.stats.retries["a"] >= 4)
        assert world.plane.site.stats.retries["a"] < 20, "no storm"
        assert known.health.verdict is Verdict.HEALTHY
        assert set(world.suspected) == {"a"}
        answers.append("127.0.0.1")
        assert (await sent.response()).status == 200
        await tab.listen(b'42["echo","a"]')

    run(test, "ab")


def test_pinned_requests_wait_for_a_backend_that_does_not_accept() -> None:
    """Where not even connections are accepted, a pinned poll keeps trying and goes nowhere else."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await session(world)
        world.plane.site.pool(world.known("a")).close_all()
        await world.backends[0].stall()
        poll = await tab.poll()
        await world.until(lambda: world.plane.site.stats.retries["a"] >= 3)
        assert world.known("a").health.verdict is Verdict.HEALTHY
        assert instances["b"].asked("poll") == []
        world.observe("a", Observation.REFUSED)  # the probe found that it is gone for good
        assert (await poll.response()).status == 400

    run(test, "ab", timeouts={"connect": 0.05})


def test_pinned_requests_do_not_wait_for_ever() -> None:
    """The wait for a backend that does not accept ends when the response is due."""

    async def test(world: World) -> None:
        chats(world)
        tab = await session(world)
        world.plane.site.pool(world.known("a")).close_all()
        await world.backends[0].stall()
        assert (await (await tab.poll()).response()).status == 504

    run(test, "ab", timeouts={"connect": 0.05, "response": 0.5})


def test_guess_does_not_wait() -> None:
    """A handshake by Chainlit's cookie is only a guess: it goes elsewhere, and the session does not move."""

    async def test(world: World) -> None:
        instances = chats(world)
        await session(world)
        world.plane.site.pool(world.known("a")).close_all()
        await world.backends[0].stall()
        answer = await world.ask(get(PATH + b"polling", b"Cookie: X-Chainlit-Session-id=session-S"))
        assert answer.status == 200
        assert len(instances["b"].asked("handshake")) == 1
        known = world.router.directory.get("session-S", world.now())
        assert known is not None
        assert known.backend is world.known("a")

    run(test, "ab", timeouts={"connect": 0.05})


def test_silence_until_it_is_taken_for_dead() -> None:
    """A degraded backend that was silent for health.evict_after is down, and all it had is told."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = await session(world)
        poll = await tab.poll()
        degrade(world, "a")
        known = world.known("a")
        world.parts.fleet.observe(known, Observation.SILENT, world.now() + 46)
        assert known.health.verdict is Verdict.DOWN
        assert (await poll.response()).status == 400
        answer = (await world.client()).say(get(b"/x", world.cookie("a")))
        peer = instances["b"].backend
        await world.until(lambda: peer.requests)
        answer.reset()

    run(test, "ab")


def test_all_backends_are_blocked() -> None:
    """While everybody is slow there is room for nobody new, but pages of open sessions still load."""

    async def test(world: World) -> None:
        degrade(world, "a")
        assert (await world.ask(get(PATH + b"polling"))).status == 503
        client = (await world.client()).say(get(b"/assets/x.js"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok())
        assert (await client.response()).status == 200

    run(test, affinity={"hold": 0.1})
