"""The queue of those for whom there is no room: oldest first, bounded, and nobody is let in twice."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.affinity.queue import FORGOTTEN, KEPT, PRESENT, Place, Queue

BROWSER = b"192.0.2.1\nBrowser"


def asks(queue: Queue, *names: str, now: float = 0.0, room: int = 0) -> list[Place | None]:
    """What each is told, in this order."""
    return [queue.ask(name, "", b"", now, room) for name in names]


def test_everybody_comes_in_while_there_is_room() -> None:
    """Nobody waits, and a place is kept for each until its session has come."""
    queue = Queue(10)
    assert asks(queue, "a", "b", "c", room=2) == [None, None, Place(1, 1)]
    assert asks(queue, "a", room=2) == [None], "who asks once more takes no second place"
    assert queue.take("session-a", "a", b"", 0.0)
    assert asks(queue, "c", room=2) == [Place(1, 1)], "its session is on its way"
    queue.came("session-a")
    assert asks(queue, "c", room=1) == [Place(1, 1)], "it counts as a session now, and b's is still kept"
    assert asks(queue, "c", room=2) == [None]


def test_the_oldest_comes_in_first() -> None:
    """Whoever asks first when there is room, and as many come in as there is room for."""
    asks(queue := Queue(10), *"abcd")
    assert asks(queue, "d", "c", now=1, room=2) == [Place(4, 4), Place(3, 4)]
    assert asks(queue, "e", now=1, room=2) == [Place(5, 5)], "who is new does not pass those who wait"
    assert asks(queue, "b", "a", "c", now=2, room=2) == [None, None, Place(1, 3)]
    assert queue.admitted == 2


def test_who_is_silent_is_passed_over_and_keeps_its_place() -> None:
    """A tab that is not shown asks once a minute: nobody waits for it, and it does not lose its turn."""
    asks(queue := Queue(10), "a", "b")
    late = PRESENT + 1
    assert asks(queue, "b", "c", now=late, room=0) == [Place(2, 2), Place(3, 3)]
    assert asks(queue, "b", now=late, room=1) == [None]
    assert asks(queue, "c", "a", now=late + 1, room=2) == [None, Place(1, 1)]
    assert asks(queue, "a", now=late + 1, room=3) == [None]


def test_who_asks_no_more_loses_its_place() -> None:
    """It comes last if it asks again, and is counted."""
    asks(queue := Queue(10), "a", "b")
    asks(queue, "b", now=FORGOTTEN / 2)
    assert asks(queue, "b", now=FORGOTTEN) == [Place(1, 1)]
    assert asks(queue, "a", now=FORGOTTEN) == [Place(2, 2)]
    assert queue.given_up == 1


def test_a_place_is_kept_for_a_while() -> None:
    """Who does not come gives way; who has waited for it is the next after that."""
    asks(queue := Queue(10), "a", "b", now=0)
    assert asks(queue, "a", now=1, room=1) == [None]
    assert asks(queue, "b", now=KEPT, room=1) == [Place(1, 1)]
    assert asks(queue, "b", "c", now=KEPT + 1, room=1) == [None, Place(2, 2)], "a is absent"
    assert asks(queue, "c", "a", now=KEPT + 2, room=1) == [Place(2, 2), Place(1, 2)]
    queue = Queue(10)
    assert asks(queue, "a", room=1) == [None]
    assert asks(queue, "b", now=KEPT, room=1) == [None], "who has not waited is forgotten"
    assert not queue.take("session-a", "a", b"", KEPT)


@pytest.mark.parametrize("come", ["abc", "cab"])
def test_who_gives_way_together_comes_back_in_order(come: str) -> None:
    """The oldest is the first again, in whatever order their sessions were announced."""
    queue = Queue(10)
    for number, name in enumerate("abcd"):
        queue.ask(name, "", b"", number / 10, 0)
    assert asks(queue, *"abc", now=1, room=3) == [None] * 3
    assert all(queue.take(f"session-{name}", name, b"", 2.0) for name in come)
    told = asks(queue, "d", *(f"session-{name}" for name in "abc"), now=1 + KEPT)
    assert told == [Place(4, 4), Place(1, 4), Place(2, 4), Place(3, 4)]


def test_the_queue_is_bounded() -> None:
    """Who finds it full gets no number, and a place as soon as there is one."""
    queue = Queue(2)
    assert asks(queue, "a", "b", "c") == [Place(1, 1), Place(2, 2), Place(0, 2)]
    assert queue.turned_away == 1
    assert asks(queue, "a", "c", now=1, room=1) == [None, Place(2, 2)]


def test_a_client_has_a_quarter_at_most() -> None:
    """Whatever names it gives itself; others find places."""
    queue = Queue(8)
    told = [queue.ask(f"ticket-{n}", "client", b"", 0.0, 0) for n in range(4)]
    assert told == [Place(1, 1), Place(2, 2), Place(0, 2), Place(0, 2)]
    assert queue.ask("other", "somebody", b"", 0.0, 0) == Place(3, 3)
    queue.sweep(FORGOTTEN + 1)
    assert queue.ask("ticket-9", "client", b"", FORGOTTEN + 1, 0) == Place(1, 1)


def test_a_browser_without_cookies_is_known_by_what_it_is() -> None:
    """One that says its ticket is not: others of its office look the same."""
    queue = Queue(10)
    assert queue.ask("a", "", BROWSER, 0.0, 2) is None
    assert queue.ask("b", "", b"", 0.0, 2) is None
    assert queue.kept_for(BROWSER) == "a"
    assert queue.take("session-a", "", BROWSER, 0.0)
    assert not queue.take("session-c", "", BROWSER, 0.0)
    assert not queue.take("session-c", "", b"", 0.0)
    assert queue.take("session-b", "b", b"", 0.0)


def test_a_session_takes_the_place_of_the_one_before() -> None:
    """Whoever else waits; through as many page loads as come before it connects."""
    queue = Queue(10)
    queue.leaves("one", 0.0)
    queue.becomes("one", "two", 1.0)
    queue.becomes("two", "three", 2.0)
    assert (queue.inherited("two"), queue.inherited("three")) == ("", "one")
    assert queue.inheritances() == {"one"}
    assert queue.succeed("three", "client", 3.0)
    assert queue.inheritances() == set()
    queue.leaves("one", 3.0)
    queue.becomes("one", "another", 3.0)
    assert not queue.succeed("another", "client", 3.0), "that place is taken"
    assert queue.take("three", "", b"", 3.0)
    queue.leaves("four", 4.0)
    queue.sweep(4.0 + KEPT)
    assert not queue.has("four")


@given(
    st.lists(st.tuples(st.integers(0, 7), st.floats(0, 0.7), st.integers(0, 3)), max_size=40),
    st.integers(1, 6),
)
def test_nobody_who_asks_in_time_is_passed(asked: list[tuple[int, float, int]], most: int) -> None:
    """Fewer of them are older than who is let in than there is room for. And no more wait than may."""
    queue, now = Queue(most), 0.0
    waits: dict[int, tuple[float, float]] = {}  # since when, and when it asked last
    for who, pause, room in asked:
        now += pause  # all of it is less than what a place is kept for
        kept = queue.kept()
        place = queue.ask(str(who), "", b"", now, room)
        assert len(queue) <= most
        assert (str(who) in kept) <= (place is None)
        since, _ = waits.pop(who, (now, now))
        if place is None and str(who) not in kept:
            assert len(kept) < room
            older = sum(first < since for first, last in waits.values() if last > now - PRESENT)
            assert older < room - len(kept)
        elif place is not None and place.number:
            waits[who] = since, now


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_the_numbers_are_those_of_the_order(asked: list[int]) -> None:
    """Each number once, without a gap, in the order in which they came."""
    queue = Queue(100)
    for who in asked:
        queue.ask(str(who), "", b"", 0.0, 0)
    order = list(dict.fromkeys(asked))
    numbers = [queue.ask(str(who), "", b"", 1.0, 0) for who in order]
    assert [place.number for place in numbers if place] == list(range(1, len(order) + 1))
    assert all(a.number < b.number for a, b in pairwise(place for place in numbers if place))


@pytest.mark.parametrize("room", [1, 3])
def test_when_room_appears_no_more_come_in_than_there_is(room: int) -> None:
    """All ask at once, in any order."""
    names = [str(n) for n in range(20)]
    asks(queue := Queue(100), *names)
    told = asks(queue, *reversed(names), now=3.0, room=room) + asks(queue, *names, now=3.0, room=room)
    assert sum(place is None for place in told[20:]) == room
    assert sorted(queue.kept()) == names[:room]


def test_one_session_leaves_one_place() -> None:
    """However often its browser says that another one is to come, nobody else waits for more than that."""
    queue = Queue(10)
    for number in range(1000):
        queue.leaves("one", 0.0)
        queue.becomes("one", f"next-{number}", 0.0)
    assert queue.inheritances() == {"one"}
    assert queue.inherited("next-999") == "one"
    assert "heirs=4" in repr(queue), "and little is remembered of it"


_NAMES, _CLIENTS = st.sampled_from("abcd"), st.sampled_from(["", "x", "y"])
_BROWSERS = st.sampled_from([b"", BROWSER])


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), _NAMES, _CLIENTS, _BROWSERS, st.integers(-1, 3)),
            st.tuples(st.just("take"), _NAMES, _NAMES, _BROWSERS),
            st.tuples(st.just("leaves"), _NAMES),
            st.tuples(st.just("becomes"), _NAMES, _NAMES),
            st.tuples(st.just("succeed"), _NAMES, _CLIENTS),
            st.tuples(st.just("came"), _NAMES),
            st.tuples(st.just("later"), st.floats(0, 40)),
        ),
        max_size=40,
    ),
)
@example(
    [
        ("leaves", "a"),
        ("becomes", "a", "b"),
        ("ask", "c", "x", BROWSER, 1),
        ("take", "b", "c", b""),
        ("succeed", "b", "y"),
    ]
)
@example([("ask", "b", "x", b"", 0), ("ask", "c", "y", b"", 2), ("take", "b", "c", b"")])
def test_whatever_is_said_in_any_order_no_place_is_lost(said: list[tuple[object, ...]]) -> None:
    """What counts for a client is what waits or is kept for it: else it had fewer places for ever."""
    queue, now = Queue(8), 0.0
    for what, *given_to in said:
        match what, *given_to:
            case "later", float(pause):
                now += pause
            case "ask", str(name), str(whose), bytes(browser), int(room):
                queue.ask(name, whose, browser, now, room)
            case "take", str(session), str(name), bytes(browser):
                queue.take(session, name, browser, now)
            case "succeed", str(session), str(whose):
                if queue.inherited(session):
                    queue.succeed(session, whose, now)
            case "leaves", str(session):
                queue.leaves(session, now)
            case "becomes", str(before), str(session):
                queue.becomes(before, session, now)
            case "came", str(session):
                queue.came(session)
    line, kept = queue._line, queue._kept
    assert not set(line) & set(kept)
    tickets = [*line.values(), *(each.ticket for each in kept.values())]
    assert queue._held_of == Counter(ticket.whose for ticket in tickets if ticket.whose)
