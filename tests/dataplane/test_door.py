"""Where each backend may have so many sessions only, the others wait in a queue, and are told their place."""

import re

import pytest

from proxy.affinity.backend import AdminState
from tests.dataplane.browsing import (
    FULL,
    TRY_AGAIN_LATER,
    Browser,
    browsers,
    configure,
    counts,
    leave,
    place_in,
    run_full,
)
from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.multiplexed import NAME
from tests.dataplane.multiplexed import Browser as Multiplexed
from tests.dataplane.peers import get
from tests.dataplane.world import World, run
from tests.support.certificates import Authority


def test_who_comes_when_all_are_full_waits_for_its_turn() -> None:
    """Oldest first, as many as there is room for, each told its place."""

    async def test(world: World) -> None:
        chats(world)
        one, two, three, four = browsers(world, 4)
        first = await one.visit("session-1")
        assert [await each.place() for each in (two, three, four)] == [b"1 of 1", b"2 of 2", b"3 of 3"]
        assert await two.place() == b"1 of 3", "it asks again"
        await leave(world, first)
        assert await four.place() == b"3 of 3", "who happens to ask first is not first"
        second = await two.visit("session-2")
        assert [await each.place() for each in (three, four)] == [b"1 of 2", b"2 of 2"]
        await leave(world, second)
        await leave(world, await three.visit("session-3"))
        assert (await four.load()).status == 200
        assert counts(world) == {"waiting": 0, "kept": 1, "admitted": 3, "given_up": 0, "turned_away": 0}
        assert sum(world.plane.site.doorway.seconds.counts) == 3

    run_full(test)


def test_a_place_is_kept_until_the_session_has_come() -> None:
    """When there is room for one, one page is let in, however many ask before it has connected."""

    async def test(world: World) -> None:
        chats(world)
        one, two, three = browsers(world, 3)
        assert (await one.load()).status == 200
        assert await two.place() == b"1 of 1"
        await one.announce("session-1")
        assert await three.place() == b"2 of 2"
        await one.connect("session-1")
        assert await two.place() == b"1 of 2"
        assert world.known("a").sessions == 1

    run_full(test)


def test_the_page_tells_nobody_else() -> None:
    """It is kept in no cache, its ticket is no script's, and what asks is answered with a text."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        await one.visit("session-1")
        page = await two.load()
        assert page.get(b"cache-control") == b"no-store"
        assert page.get(b"content-type") == b"text/html; charset=utf-8"
        cookie = page.get(b"set-cookie") or b""
        assert b"HttpOnly; Max-Age=120; SameSite=Lax" in cookie
        ticket = two.cookies[b"chainlit_queue"]
        assert ticket in page.body
        asked = await two.world.ask(get(b"/", b"X-Chainlit-Queue: " + ticket, *two.fields))
        assert (asked.status, asked.get(b"content-type")) == (503, b"text/plain; charset=utf-8")
        assert place_in(asked.body) == b"1 of 1"

    run_full(test)


def test_only_pages_wait() -> None:
    """Files, the page's own questions and what an app's clients ask go on: they take no session."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        await one.visit("session-1")
        for fields in (
            [b"Accept: */*"],
            [b"Accept: text/html", b"Sec-Fetch-Mode: cors"],
            [b"Accept: text/html", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: image"],
        ):
            assert (await world.ask(get(b"/assets/a.js", *fields, *two.fields))).status == 200
        assert (await world.ask(get(b"/", b"Accept: text/html", *two.fields))).status == 503, "an old browser"

    run_full(test)


def test_who_refuses_cookies_waits_too() -> None:
    """The page that is open names its ticket, and the page load behind it is that of the same browser."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        first = await one.visit("session-1")
        shy = Browser(world, b"192.0.2.9", refuses=True)
        ticket = re.search(rb'"X-Chainlit-Queue": "([\w-]+)"', (await shy.load()).body)
        assert ticket
        assert await two.place() == b"2 of 2"
        field = b"X-Chainlit-Queue: " + ticket[1]
        asked = await world.ask(get(b"/", field, *shy.fields))
        assert place_in(asked.body) == b"1 of 2"
        await leave(world, first)
        assert (await world.ask(get(b"/", field, *shy.fields))).status == 202
        await shy.visit("session-9")
        assert await two.place() == b"1 of 1"

    run_full(test)


def test_a_reload_takes_the_place_of_its_own_session() -> None:
    """Nobody who waits comes between, though the session before has ended by then."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        first = await one.visit("session-1")
        assert await two.place() == b"1 of 1"
        assert (await one.load()).status == 200
        await leave(world, first)
        assert await two.place() == b"1 of 1"
        await one.announce("session-2")
        assert await two.place() == b"1 of 1"
        second = await one.connect("session-2")
        await leave(world, second)
        third = await one.visit("session-3")  # its tab was closed a moment ago
        assert await two.place() == b"1 of 1"
        await leave(world, third)
        world.plane.site.doorway.queue.sweep(world.now() + 40)
        assert (await two.load()).status in {200, 503}

    run_full(test)


def test_one_session_takes_the_place_of_another() -> None:
    """However many pages a browser loads with the cookie of a session that it had."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        first = await one.visit("session-1")
        assert await two.place() == b"1 of 1"
        for session in ("session-2", "session-3"):
            assert (await one.load()).status == 200
            await one.announce(session)
            one.cookies[b"X-Chainlit-Session-id"] = b"session-1"
        await leave(world, first)
        await one.connect("session-2")
        assert (await (await one.say_connect("session-3")).hear())[:2] == TRY_AGAIN_LATER
        assert world.known("a").sessions == 1

    run_full(test)


def test_sessions_that_come_at_once_are_spread() -> None:
    """Nobody has connected yet when the second of two comes, and the pins of both lead to one backend."""

    async def test(world: World) -> None:
        instances = chats(world)
        gates = [instance.hold("connect") for instance in instances.values()]
        one, two = browsers(world, 2)
        for number, browser in enumerate((one, two)):
            browser.cookies[b"chainlit_pin"] = world.pin("a")
            assert (await browser.load()).status == 200
            await browser.announce(f"session-{number}")
            await browser.say_connect(f"session-{number}")
            await world.until(lambda number=number: len(world.router.claims) > number)  # type: ignore[misc]
        await world.until(lambda: all(len(each.heard) == 1 for each in instances.values()))
        for gate in gates:
            gate.set()

    run_full(test, "ab")


def test_a_reload_of_a_page_that_polls_is_let_in() -> None:
    """It leaves without a word, so its session counts for a while; its next one comes in all the same."""

    async def test(world: World) -> None:
        chats(world)
        (one,) = browsers(world, 1)
        assert (await one.load()).status == 200
        await one.announce("session-1")
        tab = Tab(world, *one.fields)
        await tab.handshake()
        assert (await (await tab.post(connect_packet("session-1"))).response()).status == 200
        await tab.listen(b'40{"sid":"a"}')
        await one.visit("session-2")
        assert world.known("a").sessions == 2

    run_full(test)


def test_a_second_tab_waits_while_the_first_one_stays() -> None:
    """Its page is there, since nobody can tell it from a reload; its session takes its turn in the queue."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        first = await one.visit("session-1")
        assert (await one.load()).status == 200
        await one.announce("session-2")
        socket = await one.say_connect("session-2")
        assert (await socket.hear())[:2] == TRY_AGAIN_LATER
        assert await two.place() == b"2 of 2"
        await leave(world, first)
        await one.connect("session-2")
        assert await two.place() == b"1 of 1"

    run_full(test)


def test_who_never_loaded_a_page_does_not_walk_around_the_queue() -> None:
    """A CONNECT without a place is refused, by websocket and by polling, and takes its turn."""

    async def test(world: World) -> None:
        instances = chats(world)
        one, two = browsers(world, 2)
        first = await one.visit("session-1")
        stranger = Browser(world, b"192.0.2.7")
        socket = await stranger.say_connect("session-7")
        assert await socket.hear() == TRY_AGAIN_LATER + FULL
        tab = Tab(world, *Browser(world, b"192.0.2.8").fields)
        await tab.handshake()
        answer = await (await tab.post(connect_packet("session-8"))).response()
        assert (answer.status, answer.get(b"retry-after")) == (503, b"3")
        assert FULL in answer.body
        assert await two.place() == b"3 of 3"
        assert instances["a"].sessions == {"session-1"}, "the instance has not heard of them"
        await leave(world, first)
        socket = await Browser(world, b"192.0.2.8").say_connect("session-8")
        assert (await socket.hear())[:2] == TRY_AGAIN_LATER, "the other one came first"
        await stranger.connect("session-7")
        assert len(world.router.claims) == 0
        assert world.plane.site.stats.limits["most_sessions"] == 3  # type: ignore[index]

    run_full(test)


def test_a_session_that_exists_is_never_refused() -> None:
    """Not when it reconnects, where the limit was lowered meanwhile."""

    async def test(world: World) -> None:
        chats(world)
        one, two, three = browsers(world, 3)
        first = await one.visit("session-1")
        await two.visit("session-2")
        configure(world, balance=world.plane.site.config.balance.model_copy(update={"most_sessions": 1}))
        first.peer.writer.transport.abort()
        await world.until(lambda: len(world.plane.tunnels) == 1)
        await one.connect("session-1")
        assert world.known("a").sessions == 2
        assert await three.place() == b"1 of 1"

    run_full(test, most=3)


def test_a_session_that_an_instance_holds_is_never_refused() -> None:
    """It is from before a restart of this proxy, or has come through another one."""

    async def test(world: World) -> None:
        instances = chats(world)
        one, two, three = browsers(world, 3)
        await one.visit("session-1")
        await two.visit("session-2")
        instances["b"].sessions.add("session-9")
        await three.connect("session-9")
        assert world.known("b").sessions == 2

    run_full(test, "ab")


def test_the_limit_can_be_lifted_and_the_queue_goes_on() -> None:
    """With more room as many more come in; without a limit everybody does."""

    async def test(world: World) -> None:
        chats(world)
        one, two, three, four = browsers(world, 4)
        await one.visit("session-1")
        assert [await each.place() for each in (two, three, four)] == [b"1 of 1", b"2 of 2", b"3 of 3"]
        balance = world.plane.site.config.balance
        configure(world, balance=balance.model_copy(update={"most_sessions": 2}))
        assert await three.place() == b"2 of 3"
        await two.visit("session-2")
        assert await three.place() == b"1 of 2"
        configure(world, balance=balance.model_copy(update={"most_sessions": 0}))
        await four.visit("session-4")
        await three.visit("session-3")

    run_full(test)


def test_a_backend_that_drains_or_dies_has_no_room() -> None:
    """Its sessions go on, and who waits comes in when there is a backend again."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        await one.visit("session-1")
        (other,) = (backend for backend in world.router.fleet if not backend.sessions)
        for state in (AdminState.MAINTENANCE, AdminState.DRAIN):
            world.parts.fleet.set_admin_state(other, state)
            assert await two.place() == b"1 of 1"
        world.parts.fleet.set_admin_state(other, AdminState.READY)
        await two.visit("session-2")

    run_full(test, "ab")


def test_new_sessions_go_where_there_is_room() -> None:
    """A full backend gets none while another one has room, whatever its clients' pins say."""

    async def test(world: World) -> None:
        chats(world)
        one, two, three = browsers(world, 3)
        for browser in (one, two, three):
            browser.cookies[b"chainlit_pin"] = world.pin("a")
        await one.visit("session-1")
        await two.visit("session-2")
        assert [world.known(name).sessions for name in "ab"] == [1, 1]
        assert await three.place() == b"1 of 1"

    run_full(test, "ab")


def test_a_client_cannot_take_all_places() -> None:
    """It has a quarter of them at most; then its page has no number, and tries again."""

    async def test(world: World) -> None:
        chats(world)
        one, two = browsers(world, 2)
        await one.visit("session-1")
        told = [await Browser(world, b"192.0.2.66").place() for _ in range(4)]
        assert told == [b"1 of 1", b"2 of 2", b"", b""]
        assert await two.place() == b"3 of 3"
        assert counts(world)["turned_away"] == 2

    run_full(test, balance={"queue": 8})


def test_nobody_waits_without_a_limit() -> None:
    """Nor is there anything to look at."""

    async def test(world: World) -> None:
        chats(world)
        for number, browser in enumerate(browsers(world, 5)):
            await browser.visit(f"session-{number}")
        assert world.plane.site.door is None

    run(test)


def test_nobody_is_queued_where_no_backend_takes_sessions() -> None:
    """Then the page is another one: a drain that ends helps, and a place in a queue does not."""

    async def test(world: World) -> None:
        assert b"You are number" not in (await browsers(world, 1)[0].load()).body
        assert counts(world)["waiting"] == 0

    run_full(test, healthy=False, affinity={"hold": 0})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs for the proxy."""
    return Authority(tmp_path_factory.mktemp("authority"))


def test_in_http2_as_in_http1(authority: Authority) -> None:
    """The same page, and a cookie that lives in a frame of another site, too."""

    async def test(world: World) -> None:
        chats(world)
        client = await Multiplexed.open(world, authority)
        page = ((b"accept", b"text/html"), (b"sec-fetch-mode", b"navigate"))
        for address in (b"192.0.2.1", b"192.0.2.2"):
            answer = await client.answer(client.ask(b"/", *page, (b"x-forwarded-for", address)))
        assert (answer.status, place_in(answer.body)) == (503, b"1 of 1")
        assert b"Secure; SameSite=None; Partitioned" in (answer.get(b"set-cookie") or b"")

    run_full(test, tls=authority.issue(NAME))
