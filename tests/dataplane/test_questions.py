"""How many questions are asked of backends: which are joined, remembered, or not asked."""

import asyncio

import pytest

from proxy.affinity.router import Asked
from proxy.dataplane.locate import Result
from proxy.errors import Limit
from tests.dataplane.chat import DENIES, HOLDS
from tests.dataplane.peers import Message, Peer, get, ok
from tests.dataplane.test_locate import FILE, asked, results
from tests.dataplane.world import World, run


class Gate:
    """Answers everything at all backends, from when it is opened on."""

    def __init__(self, world: World, answer: bytes = DENIES) -> None:
        self.world = world
        self.answer = answer
        self.opened = asyncio.Event()
        for backend in world.backends:
            backend.serve(self._answer)

    async def _answer(self, peer: Peer, _: Message) -> None:
        await self.opened.wait()
        peer.say(self.answer)

    async def heard(self, count: int) -> None:
        """Wait until so many questions have come to each backend."""
        backends = self.world.backends
        await self.world.until(lambda: all(len(backend.requests) == count for backend in backends))


def test_equal_questions_are_asked_once() -> None:
    """Requests of one tab that come together wait for one answer; those with another login ask for theirs."""

    async def test(world: World) -> None:
        gate = Gate(world)
        request = get(FILE + b"session-S", b"Cookie: access_token=1")
        clients = [(await world.client()).say(request) for _ in range(5)]
        await world.until(lambda: results(world) == {"joined": 4})
        clients.append((await world.client()).say(request.replace(b"=1", b"=2")))
        await gate.heard(2)
        clients.pop(0).reset()  # the one that asked
        gate.opened.set()
        for client in clients:
            assert (await client.response()).status == 401
        assert results(world) == {"joined": 4, "nobody": 2}

    run(test, "ab")


def test_a_question_that_nobody_waits_for_is_given_up() -> None:
    """The last that leaves takes it along."""

    async def test(world: World) -> None:
        clients = [(await world.client()).say(get(FILE + b"session-S")) for _ in range(2)]
        questions = [await backend.accept() for backend in world.backends]
        await world.until(lambda: results(world) == {"joined": 1})
        clients[0].reset()
        for peer in questions:
            await peer.request()
        clients[1].reset()
        for peer in questions:
            await peer.gone()
        assert not world.plane.site.locator._questions
        assert not world.plane.site.locator._lines

    run(test, "ab")


def test_one_that_waits_for_its_turn_may_leave() -> None:
    """Whoever is behind it in the line gets the connection that it would have had."""

    async def test(world: World) -> None:
        gate = Gate(world)
        clients = [(await world.client()).say(made_up(at, world.cookie("b"))) for at in range(3)]
        lines = world.plane.site.locator._lines
        await world.until(lambda: [len(line.waiting) for line in lines.values()] == [2, 2])
        clients.pop(1).reset()
        await world.until(lambda: [len(line.waiting) for line in lines.values()] == [1, 1])
        gate.opened.set()
        for client in clients:
            assert (await client.response()).status == 401
        assert results(world) == {"nobody": 2}
        assert not lines

    run(test, "ab", affinity={"locate_connections": 1})


def test_a_kept_connection_that_was_closed_says_nothing() -> None:
    """The backend is asked again over a new one."""

    async def test(world: World) -> None:
        for backend in world.backends:  # leaves a connection to each in the pool
            client = (await world.client()).say(get(b"/", world.cookie(backend.name)))
            peer = await backend.accept()
            await peer.request()
            peer.say(ok())
            await client.response()
        client = (await world.client()).say(get(FILE + b"session-S"))
        for backend in world.backends:
            kept = backend.peers[0]
            await kept.request()
            kept.reset()
        for backend, answer in zip(world.backends, (DENIES, HOLDS), strict=True):
            peer = await backend.accept()
            assert b"/project/file/x" in (await peer.request()).target
            peer.say(answer)
        last = world.backends[1].peers[-1]
        assert (await last.request()).target == FILE + b"session-S"
        last.say(ok(b"here"))
        assert (await client.response()).body == b"here"
        assert results(world) == {"found": 1}

    run(test, "ab")


def test_made_up_ids_cost_so_many_questions() -> None:
    """What is over the bound is asked for nobody and goes by the rest of its evidence, at once."""

    async def test(world: World) -> None:
        gate = Gate(world)
        clients = []
        for at in range(20):
            target = b"/project/file/y?session_id=made-up-%d" % at
            clients.append((await world.client()).say(get(target, world.cookie("b"))))
        await world.until(lambda: results(world) == {"over_limit": 16})
        await world.until(lambda: len(world.backends[1].requests) == 2 + 16)
        assert len(asked(world)) == 2 + 2  # over two connections to each of the two
        assert len(world.router.directory) == 0
        assert world.plane.site.stats.limits[Limit.LOCATE_QUESTIONS] == 16
        gate.opened.set()
        for client in clients:
            assert (await client.response()).status == 401
        assert len(asked(world)) == 4 * 2
        assert results(world) == {"over_limit": 16, "nobody": 4}
        assert [backend.sessions for backend in world.router.fleet] == [0, 0]

    run(test, "ab", affinity={"locate_questions": 4, "locate_connections": 2, "locate_timeout": 60})


def made_up(at: int, *lines: bytes) -> bytes:
    """A request that names a session which nobody holds."""
    return get(b"/project/file/y?session_id=made-up-%d" % at, *lines)


NOBODY: dict[str, list[str]] = {"trusted": []}


def test_a_client_has_so_many_questions() -> None:
    """What is over them is not asked and goes by the rest of its evidence; each client has its own."""

    async def test(world: World) -> None:
        gate = Gate(world)
        gate.opened.set()
        clients = [b"X-Forwarded-For: 192.0.2.%d" % n for n in (1, 2)]
        for at in range(10):
            response = await world.ask(made_up(at, clients[0], world.cookie("b")))
            assert response.status == 401  # of the request itself
        assert len(asked(world)) == 3 * 2
        assert results(world) == {"nobody": 3, "over_client_limit": 7}
        assert world.plane.site.stats.limits[Limit.QUESTIONS_PER_MINUTE] == 7
        assert len(world.router.directory) == 3
        await world.ask(made_up(20, clients[1]))
        assert results(world)["nobody"] == 4
        for at in range(30, 40):
            await world.ask(made_up(at))  # a trusted proxy is nobody's client
        assert results(world)["nobody"] == 14

    run(test, "ab", limits={"questions_per_minute": 3})


def test_those_that_find_their_session_are_not_counted() -> None:
    """The tabs of an office that come back after a restart are asked for, however many they are."""

    async def test(world: World) -> None:
        Gate(world, HOLDS).opened.set()
        for at in range(10):
            await world.ask(made_up(at))
        assert results(world) == {"found": 10}

    run(test, "ab", limits={"questions_per_minute": 1}, forwarded=NOBODY)


def test_zero_sets_no_limit() -> None:
    """A client may ask as much as it likes."""

    async def test(world: World) -> None:
        Gate(world).opened.set()
        for at in range(10):
            await world.ask(made_up(at))
        assert results(world) == {"nobody": 10}
        world.plane.site.locator.sweep(world.now())

    run(test, "ab", limits={"questions_per_minute": 0}, forwarded=NOBODY)


@pytest.mark.parametrize("locate", ["auto", "always"])
def test_what_nobody_holds_is_remembered_for_a_moment(locate: str) -> None:
    """Not where proxies that share nothing always ask: it may have connected through another meanwhile."""

    async def test(world: World) -> None:
        Gate(world).opened.set()
        locator = world.plane.site.locator
        for _ in range(3):
            await world.ask(made_up(1))
            session = world.router.directory.get("made-up-1", world.now())
            assert session is not None
            world.router.directory.sweep(world.now() + 1000)  # it is forgotten
        expected = {"auto": {"nobody": 1, "remembered": 2}, "always": {"nobody": 3}}
        assert results(world) == expected[locate]
        locator.sweep(world.now() + 3)
        assert not locator._nobody
        for at in range(5000):
            locator._remember(at)
        assert len(locator._nobody) == 4096

    run(test, "ab", affinity={"locate": locate})


def test_who_has_been_up_for_long_asks_for_nothing_made_up() -> None:
    """By then every session that there is has its entry, or had it."""

    async def test(world: World) -> None:
        Gate(world).opened.set()
        for backend in world.router.fleet:
            backend.joined -= 5000
        for at in range(10):
            await world.ask(made_up(at))
        assert (asked(world), results(world)) == ([], {})

    run(test, "ab", affinity={"alone": True})


def test_a_backend_that_hangs_holds_up_no_other() -> None:
    """Who waits for one of its connections is answered by the others, or goes on in time."""

    async def test(world: World) -> None:
        answer = HOLDS

        async def say(peer: Peer, request: Message) -> None:
            peer.say(answer if b"/file/x?" in request.target else ok(b"here"))

        async def hang(peer: Peer, request: Message) -> None:
            if b"/file/x?" not in request.target:
                peer.say(ok(b"here"))

        world.backends[0].serve(hang)
        world.backends[1].serve(say)
        for at in range(6):
            assert (await world.ask(get(b"/project/file/y?session_id=session-%d" % at))).body == b"here"
        assert results(world) == {"found": 6}
        answer = DENIES
        clients = [await world.client() for _ in range(5)]
        for at, client in enumerate(clients):
            client.say(get(b"/project/file/y?session_id=made-up-%d" % at))
        for client in clients:
            assert (await client.response()).body == b"here"
        assert results(world) == {"found": 6, "unclear": 5}
        assert len(world.router.directory) == 6

    run(test, "ab", affinity={"locate_timeout": 2.0, "locate_connections": 1})


def test_the_results_are_counted_from_the_start() -> None:
    """Each of them is a series."""

    async def test(world: World) -> None:
        assert set(world.plane.site.locator.results) == set(Result)
        assert await world.plane.site.locator.ask(None, []) is Asked.IN_VAIN

    run(test)
