"""Polling transports whose requests come to several proxies, through a real Redis: who hands over tells."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from proxy.affinity.backend import Backend
from proxy.affinity.decision import EngineSession, Void
from proxy.affinity.pins import join_pin
from proxy.affinity.telling import may_be_told
from proxy.borders import Work, held
from proxy.dataplane import far_polls
from proxy.dataplane.arrivals import Arrivals
from proxy.dataplane.far_polls import Awaited, FarPolls
from proxy.dataplane.hand_over import Waits
from proxy.dataplane.patience import Stood, never
from proxy.dataplane.pool import Pool
from proxy.dataplane.stats import Stats
from proxy.dataplane.upstream_heads import PollHeads
from proxy.errors import ProxyError
from tests.affinity.making import backend_of, kill
from tests.dataplane.peers import Message, Peer, ok
from tests.dataplane.scripted import Backend as Scripted
from tests.dataplane.test_shared_directory import Side, patient, redis_server, run, sides
from tests.support.redis_server import RedisServer
from tests.support.waiting import eventually

__all__ = ["patient", "redis_server"]

WAIT = 10.0
HEADS = PollHeads(b"/ws/socket.io/?EIO=4&transport=polling", b"", b"id")
CONNECT = b'40{"sessionId":"polling","clientType":"webapp","threadId":"","userEnv":"{}","chatProfile":"a b"}'
ASK = b'42["client_message",{"message":{"id":"m1"}}]'
Scenario = Callable[["Proxy", "Proxy"], Coroutine[Any, Any, None]]


class Proxy(Side):
    """One proxy, as far as it shares and hears of hand-overs; as Place of FarPolls."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.stood: Stood = never
        self.stats = Stats()
        self.leaving = False
        self.arrivals = Arrivals(self.router.fleet, never)
        self.waits = Waits()
        self.waits.hold = 5.0
        self.far = FarPolls(self, self.waits, lambda: True)
        self.wanted: list[bool] = []  # whether what was wanted is planned
        self.takes = True  # whether what is wanted is done
        self.far.wanted = self._wanted
        self.redirected: list[EngineSession] = []
        self.far.redirect = self.redirected.append
        self.ended: list[EngineSession] = []
        self.far.end = self.ended.append
        self.tasks: set[asyncio.Task[None]] = set()
        self.pools: dict[Backend, Pool] = {}

    def _wanted(self, engine: EngineSession, away: bool) -> bool:
        self.wanted.append(away)
        if self.takes:
            engine.hand_over = self
            self.far.begun(engine)
        return self.takes

    def pool(self, backend: Backend) -> Pool:
        """As Place."""
        return self.pools.setdefault(backend, Pool(backend, connect_timeout=1.0, idle_timeout=1.0))

    def report(self, backend: Backend, error: ProxyError) -> None:
        """As Place."""

    def spawn(self, work: Work, give_up: Callable[[], None]) -> asyncio.Task[None]:
        """As Place."""
        task = asyncio.get_running_loop().create_task(held(work, give_up))
        self.tasks.add(task)
        return task

    def engine(self) -> EngineSession:
        """The transport, which is known here."""
        engine = self.router.engines.get(b"sid")
        assert engine is not None
        return engine

    def goes_on(self, upstream: bytes) -> None:
        """It has handed the transport over to `b`."""
        engine = self.engine()
        self.router.directory.assign("polling", backend_of(self.router.fleet, "b"), monotonic())
        self.router.engines.rehome(engine, backend_of(self.router.fleet, "b"), upstream)
        engine.hand_over = None
        self.router.engines.tell(engine)


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Proxy, Proxy]]:
    """One that has seen a transport's CONNECT, and another one that has met the transport."""
    one, other = Proxy(url), Proxy(url)
    async with sides(one, other):
        a = backend_of(one.router.fleet, "a")
        here = one.router.engines.opened(b"sid", a, monotonic())
        there = other.router.engines.opened(b"sid", backend_of(other.router.fleet, "a"), monotonic())
        here.keep(CONNECT, HEADS)
        one.far.connects(here)
        one.router.engines.decide(here, one.connect("polling", "a"))
        await eventually(lambda: there.session is not None, WAIT, "the other one knows it")
        yield one, other
        for awaited in (engine.hand_over for engine in (here, there)):
            if isinstance(awaited, Awaited):
                awaited.cancel()


def test_a_wish_is_heard_by_who_has_the_connect(redis_server: RedisServer) -> None:
    """The other one holds the transport's requests until it is told where that goes on."""

    async def scenario() -> None:
        async with two(redis_server.url) as (one, other):
            engine = other.engine()
            engine.polls = 1
            assert other.far.wish(engine, away=False)
            assert not engine.is_plain
            await eventually(lambda: one.wanted, WAIT, "it is wanted")
            assert one.wanted == [False]
            one.goes_on(b"new")
            await eventually(lambda: engine.upstream_sid == b"new", WAIT, "it is told")
            assert engine.backend is backend_of(other.router.fleet, "b")
            assert (engine.hand_over, engine.is_plain) == (None, True)
            assert other.redirected == [engine], "polls that wait at the backend before ask anew"
            assert not other.ended

    run(scenario)


def test_who_is_late_is_told_at_once(redis_server: RedisServer) -> None:
    """A wish for what was done long ago does not begin it again."""

    async def scenario() -> None:
        async with two(redis_server.url) as (one, other):
            other.router.engines.closed(other.engine(), monotonic())
            one.goes_on(b"new")
            other.router.engines._elsewhere.clear()  # it was told longer ago
            kill(other.router.fleet, "a")
            pinned = join_pin(backend_of(other.router.fleet, "a").token, b"sid")
            engine = other.far.meet(pinned)
            assert engine is not None
            assert other.far.wish(engine, away=False)
            await eventually(lambda: engine.upstream_sid == b"new", WAIT, "it is told")
            assert not one.wanted

    run(scenario)


def test_it_is_held_from_the_beginning(redis_server: RedisServer) -> None:
    """Whoever has not met a transport yet that is handed over does not ask the backend that it leaves."""

    async def scenario() -> None:
        async with two(redis_server.url) as (one, other):
            other.router.engines.closed(other.engine(), monotonic())
            one.far.begun(one.engine())
            await eventually(lambda: other.far._begun, WAIT, "it is told")
            pinned = join_pin(backend_of(other.router.fleet, "a").token, b"sid")
            engine = other.far.meet(pinned)
            assert engine is not None
            assert isinstance(engine.hand_over, Awaited)
            one.goes_on(b"new")
            await eventually(lambda: engine.hand_over is None, WAIT, "it goes on")
            assert engine.upstream_sid == b"new"

    run(scenario)


@pytest.mark.parametrize("answers", [True, False])
def test_nothing_comes_of_it(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Whether that is told or nobody answers: the sid is unknown then, and the client connects anew."""
    monkeypatch.setattr(far_polls, "_ANSWERS", WAIT if answers else 0.1)

    async def scenario() -> None:
        async with two(redis_server.url) as (one, other):
            engine = other.engine()
            one.takes = False
            if not answers:
                one.router.engines.closed(one.engine(), monotonic())
            assert other.far.wish(engine, away=True)
            await eventually(lambda: engine.hand_over is None, WAIT, "it is told")
            assert engine.decision is Void.VOID
            assert other.ended == [engine], "polls that still wait are told"
            assert not other.far.wish(engine, away=True)

    run(scenario)


def test_the_end_of_a_hand_over_was_not_heard(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for once more."""
    monkeypatch.setattr(far_polls, "_ANSWERS", 0.2)

    async def scenario() -> None:
        async with two(redis_server.url) as (one, other):
            engine = other.engine()
            other.far.wish(engine, away=False)
            await eventually(lambda: one.wanted, WAIT, "it is wanted")
            one.router.engines.heard = None
            one.goes_on(b"new")
            one.router.engines.heard = one.shared._connected
            await eventually(lambda: engine.upstream_sid == b"new", WAIT, "it is told when it is asked for")
            assert one.wanted == [False]

    run(scenario)


def test_nobody_is_asked_while_redis_is_down(redis_server: RedisServer) -> None:
    """Then the sid is unknown at once."""
    lonely = Proxy(redis_server.url)
    engine = lonely.router.engines.opened(b"sid", backend_of(lonely.router.fleet, "a"), 0.0)
    assert not lonely.far.wish(engine, away=False)
    assert lonely.far.meet(engine.pinned) is None


def test_what_was_said_elsewhere(redis_server: RedisServer) -> None:
    """Each proxy keeps what came through it, and all know what was taken; then each says its own again."""
    asked: list[Message] = []

    async def scenario() -> None:
        async with two(redis_server.url) as (one, other):
            b = Scripted("b")
            await b.listen()

            async def answer(peer: Peer, message: Message) -> None:
                asked.append(message)
                peer.say(ok(b"ok"))

            b.serve(answer)
            backend_of(other.router.fleet, "b").port = b.port
            here, there = one.engine(), other.engine()
            here.hears().said(b'42["client_message",{"message":{"id":"m0"}}]')
            one.far.said(here, HEADS, 1)
            await eventually(lambda: len(there.untaken) == 1, WAIT, "the other one counts it")
            there.hears().said(ASK)
            other.far.said(there, HEADS, 1)
            await eventually(lambda: len(here.untaken) == 2, WAIT, "the one counts it")
            for begins in (True, False):
                here.untaken.hear(begins=begins)
                one.far.turns(here, begins=begins)
            await eventually(lambda: len(there.untaken) == 1, WAIT, "the first was answered")
            assert (here.untaken.packets, there.untaken.packets) == ([b""], [ASK])
            one.goes_on(b"new")
            await eventually(lambda: asked and there.hand_over is None, WAIT, "it is said again")
            assert [message.body for message in asked] == [
                b'42["chainlit_proxy_said_again","client_message",{"message":{"id":"m1"}}]'
            ]
            assert b"sid=new" in asked[0].start
            await b.end()
            other.pool(there.backend).close_all()

    run(scenario)


def test_who_polls_elsewhere_is_remembered(redis_server: RedisServer) -> None:
    """A CONNECT is kept as long as its client polls, through whichever proxy."""

    async def scenario() -> None:
        async with two(redis_server.url) as (one, other):
            here = one.engine()
            here.seen = monotonic() - 100
            other.far.sweep(monotonic())
            await eventually(lambda: here.heard_of, WAIT, "it is told")
            one.router.engines.sweep(monotonic())
            assert one.engine() is here

    run(scenario)


def test_a_connect_without_keys_is_told(redis_server: RedisServer) -> None:
    """A websocket that takes over from the polls may be another proxy's."""

    async def scenario() -> None:
        async with two(redis_server.url) as (_, other):
            engine = other.engine()
            assert other.far.connect_of(engine) == CONNECT
            other.far.sweep(monotonic() + 100)
            assert other.far.connect_of(engine) == b""

    run(scenario)


@pytest.mark.parametrize(
    "connect",
    [
        b'40{"sessionId":"s","userEnv":"{\\"OPENAI_API_KEY\\":\\"sk\\"}"}',
        b'40{"sessionId":"s","token":"secret"}',
        b'40{"sessionId":"s","clientType":{"token":"secret"}}',
        b'40{"sessionId":"%b"}' % (b"x" * 2000),
        b"40",
        b'40["sessionId"]',
        b"",
    ],
)
def test_other_connects_stay_here(connect: bytes) -> None:
    """Keys of the user, what an app has put into it, and what is none."""
    assert may_be_told(CONNECT)
    assert not may_be_told(connect)


@pytest.mark.parametrize(
    "word", ["w", "w me", "w me sid", "w me sid a b c", "b me", "k me sid", "m me sid", "c me sid x", "p"]
)
def test_what_is_not_understood_is_passed_over(redis_server: RedisServer, word: str) -> None:
    """Another version of the proxy may say more on the same channel."""
    proxy = Proxy(redis_server.url)
    engine = proxy.router.engines.opened(b"sid", backend_of(proxy.router.fleet, "a"), 0.0)
    proxy.shared._take(word)
    assert (engine.hand_over, engine.streamed, proxy.wanted) == (None, "", [])
