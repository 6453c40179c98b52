"""What the rule is asked with, and what is told of its answer: bounds, late loops, events, the API."""

import json
from time import monotonic
from typing import Any

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from proxy.config import loads
from proxy.controlplane.wants import Lateness, Wants
from tests.controlplane.scripted_moves import healthy_fleet
from tests.controlplane.test_admin import Admin, run


def wants(
    text: str = "", *, own: bool = True, names: str = "ab"
) -> tuple[Wants, list[str], Lateness, list[Any]]:
    """Of healthy backends: what it tells, how late they are, and the sessions that are open and answer."""
    told: list[str] = []
    sessions: list[Any] = []
    fleet, lateness = healthy_fleet(*names), Lateness()
    made = Wants(fleet, lambda: sessions, lambda: sessions, lateness, told.append)
    made.has_replicas = own
    made.configure(loads(f"replicas: {{{text}}}"))
    return made, told, lateness, sessions


@pytest.mark.parametrize(
    ("text", "own", "count", "said"),
    [
        ("count: 2..4", True, 4, "6 would be wanted, and replicas.count allows 4"),
        ("count: 2..9", True, 6, "200 answers and 200 sessions fill 4.10; 1 to spare"),
        ("count: 7..9", True, 7, "replicas.count wants 7 at least"),
        ("count: 2", True, 6, "1 to spare"),
        ("count: 2..4", False, 6, "1 to spare"),
    ],
)
def test_bounds_are_those_of_replicas_that_come_and_go(text: str, own: bool, count: int, said: str) -> None:
    """For a fixed number, and for backends of others, it is told how many there should be."""
    made, _, _, sessions = wants(text, own=own)
    sessions += [None] * 200
    wish = made.look(0.0)
    assert wish.wanted == count
    assert wish.reason.endswith(said)


def test_a_change_is_told_once() -> None:
    """By an event with the reason; not at the first look, which changes nothing."""
    made, told, _, sessions = wants("count: 2..9")
    made.look(0.0)
    assert told == []
    sessions += [None] * 200
    made.look(1.0)
    made.look(2.0)
    assert told == ["6 wanted, 2 before: 200 answers and 200 sessions fill 4.10; 1 to spare"]


def test_a_loop_is_late_by_its_last_probes() -> None:
    """By the median of five, of three at least; so is one whose probes are not waited for any more."""
    made, _, lateness, _ = wants()
    first, second = made._fleet
    for seconds in (0.001, 3.0, 3.0):
        assert made.look(0.0).load.late == ()
        lateness.add(first, seconds)
    assert made.look(0.0).load.late == ("a",)
    for _ in range(3):
        lateness.add(first, 0.002)
    assert made.look(0.0).load.late == ()
    for _ in range(3):
        made._fleet.observe(second, Observation.SILENT, 1.0)
    assert made.look(2.0).load.late == ("b",)


def test_only_who_serves_counts() -> None:
    """Neither one that is down nor one that an operator has taken out; who left is forgotten."""
    made, _, lateness, _ = wants(names="abc")
    a, b, c = made._fleet
    for _ in range(3):
        lateness.add(c, 1.0)
    made._fleet.set_admin_state(a, AdminState.DRAIN)
    made._fleet.observe(b, Observation.REFUSED, 1.0)
    assert made.look(2.0).load.serving == 1
    made._fleet.remove(c)
    assert lateness.of(c) == 0.0


def test_who_waits_is_wanted_to_have_a_place() -> None:
    """As a session; and no backend is taken to carry more than it may have."""
    fleet, waiting = healthy_fleet("a", "b"), [None] * 10
    made = Wants(fleet, lambda: (), lambda: [None] * 30, Lateness(), waiting=waiting)
    made.configure(loads("{replicas: {spare: 0}, balance: {most_sessions: 20}}"))
    assert made.look(0.0).reason == "0 answers and 40 sessions fill 2.00"
    waiting.append(None)
    assert made.look(1.0).wanted == 3
    made = Wants(fleet, lambda: [None] * 8, lambda: (), Lateness())
    made.configure(loads("{replicas: {spare: 0}, balance: {most_answers: 4}}"))
    assert made.look(0.0).wanted == 2


def test_the_api_tells_of_the_queue() -> None:
    """Who waits now, and what has come of others."""

    async def test(admin: Admin) -> None:
        told = json.loads((await admin.ask("/api/overview")).body)
        counts = ("waiting", "kept", "admitted", "given_up", "turned_away")
        assert told["queue"] == dict.fromkeys(counts, 0)

    run(test)


def test_the_api_tells_how_many_and_why() -> None:
    """By itself and in the overview; both the same."""

    async def test(admin: Admin) -> None:
        admin.app.parts.wants.look(monotonic())
        told = json.loads((await admin.ask("/api/replicas")).body)
        assert (told["wanted"], told["low"], told["high"], told["reason"]) == (
            1,
            None,
            None,
            "nobody is there",
        )
        assert json.loads((await admin.ask("/api/overview")).body)["replicas"] == told

    run(test)
