"""What the page of the queue asks, and who asks as it does."""

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from tests.dataplane.browsing import PAGE, browsers, configure, counts, leave, place_in, run_full
from tests.dataplane.chat import chats
from tests.dataplane.peers import get, post
from tests.dataplane.world import World


def test_the_app_hears_of_one_page_load_only() -> None:
    """Not of what the waiting page asks when it is its turn: the address may be one that is good for once."""

    async def test(world: World) -> None:
        instances = chats(world)
        one, two = browsers(world, 2)
        first = await one.visit("session-1")
        assert await two.place() == b"1 of 1"
        await leave(world, first)
        asks = b"X-Chainlit-Queue: " + two.cookies[b"chainlit_queue"]
        heard = instances["a"].backend.requests
        before = len(heard)
        for _ in range(2):
            told = await world.ask(get(b"/callback?code=once", asks, *two.fields))
            assert (told.status, told.get(b"cache-control")) == (202, b"no-store")
        assert len(heard) == before
        assert (await world.ask(get(b"/callback?code=once", *PAGE, *two.fields))).status == 200
        assert len(heard) == before + 1

    run_full(test)


def test_only_questions_are_answered_as_such() -> None:
    """A form that is sent goes on, whatever fields it has, and so does what a page with a session asks."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        await one.visit("session-1")
        assert await two.place() == b"1 of 1"
        asks = b"X-Chainlit-Queue: " + two.cookies[b"chainlit_queue"]
        assert (await world.ask(post(b"/login", b"a=b", asks, *two.fields))).status == 200

    run_full(test)


def test_no_ticket_is_believed_that_cannot_be_one() -> None:
    """Neither goes into the page or its head; who says one gets a new one."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        await one.visit("session-1")
        for forged in (
            b"a" * 65,
            b"a" * 7,
            b"<script>alert(1)</script>",
            b"%0d%0aSet-Cookie:",
            b"abcdefgh\xff",
        ):
            for field in (b"Cookie: chainlit_queue=" + forged, b"X-Chainlit-Queue: " + forged):
                answer = await world.ask(get(b"/", *PAGE, *two.fields, field))
                assert answer.status == 503
                assert place_in(answer.body)
                assert forged not in answer.body + b"".join(answer.lines)

    run_full(test)


def test_a_session_that_ended_keeps_one_place() -> None:
    """However many next ones its browser has announced: the others that wait come in."""

    async def test(world: World) -> None:
        chats(world)
        one, two, three = browsers(world, 3)
        first, second = await one.visit("session-1"), await two.visit("session-2")
        for number in range(50):
            await one.announce(f"another-{number}")
            one.cookies[b"X-Chainlit-Session-id"] = b"session-1"
        assert await three.place() == b"1 of 1"
        await leave(world, first)
        await leave(world, second)
        assert (await three.load()).status == 200

    run_full(test, most=2)


def test_who_came_while_there_was_no_limit_has_no_place_any_more() -> None:
    """Though nobody asked at the door: its session is one, and not one and a place."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        assert (await one.load()).status == 200
        await one.announce("session-1")
        balance = world.plane.site.config.balance
        configure(world, balance=balance.model_copy(update={"most_sessions": 0}))
        await one.connect("session-1")
        configure(world, balance=balance.model_copy(update={"most_sessions": 2}))
        world.plane.site.doorway.sweep(world.now())
        assert counts(world)["kept"] == 0
        assert (await two.load()).status == 200

    run_full(test)


def test_who_waits_keeps_its_place_while_no_backend_takes_sessions() -> None:
    """It is not sent to a chat that cannot connect while the last one drains, nor put at the end later."""

    async def test(world: World) -> None:
        chats(world)
        one, two, three = browsers(world, 3)
        first = await one.visit("session-1")
        assert [await each.place() for each in (two, three)] == [b"1 of 1", b"2 of 2"]
        a = world.known("a")
        asks = b"X-Chainlit-Queue: " + three.cookies[b"chainlit_queue"]
        world.parts.fleet.set_admin_state(a, AdminState.DRAIN)
        await leave(world, first)
        for _ in range(2):
            assert place_in((await world.ask(get(b"/", asks, *three.fields))).body) == b"2 of 2"
            assert await two.place() == b"1 of 2"
            world.observe("a", Observation.REFUSED)
        world.parts.fleet.set_admin_state(a, AdminState.READY)
        for _ in range(3):
            world.observe("a", Observation.ANSWERED)
        await two.visit("session-2")
        assert place_in((await world.ask(get(b"/", asks, *three.fields))).body) == b"1 of 1"

    run_full(test, affinity={"hold": 0})
