"""The bounds of tests that wait: what the machine is late is added to them, and taken off what took long."""

import asyncio

import pytest

from tests.support import waiting
from tests.support.waiting import MOST, Bound, Stopwatch, eventually, machine_late, one_of


class Machine:
    """Its clock, and what it was late, as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.late = 100.0
        monkeypatch.setattr(waiting, "monotonic", lambda: self.now)
        monkeypatch.setattr(waiting, "machine_late", lambda: self.late)


def test_a_bound_is_longer_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what that was late since, and no longer than `MOST` times."""
    machine = Machine(monkeypatch)
    bound = Bound(10)
    machine.now += 10
    assert bound.left == 0
    machine.late += 4
    assert bound.left == 4
    machine.now, machine.late = machine.now + 10, machine.late + 1000
    assert bound.left == 10 * MOST - 20


def test_a_promise_is_measured_without_what_the_machine_was_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """That makes nothing more than `MOST` times slower."""
    machine = Machine(monkeypatch)
    watch = Stopwatch()
    machine.now, machine.late = machine.now + 3, machine.late + 1
    assert (watch.seconds, watch.late) == (2, 1)
    machine.late += 5
    assert watch.seconds == 3 / MOST


def test_what_never_comes_is_told() -> None:
    """Who waits in vain fails, with what was waited for."""

    async def test() -> None:
        with pytest.raises(AssertionError, match=r"not within 0.01 s: a miracle"):
            await eventually(lambda: False, 0.01, "a miracle")
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await one_of({never}, 0.01)
        assert not never.done()

    asyncio.run(test())


def test_the_machine_tells_how_late_it_is() -> None:
    """Or says nothing; it is never early."""
    before = machine_late()
    assert machine_late() >= before >= 0
