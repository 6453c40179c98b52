"""What followers are told: only what has changed, no more often than it can be read, and of no session."""

import asyncio
import json
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from pydantic import BaseModel

from proxy.affinity.backend import Backend
from proxy.affinity.directory import Directory
from proxy.affinity.session import Move, MoveReason
from proxy.controlplane import streams
from proxy.controlplane.events import EventKind, EventLog
from proxy.controlplane.streams import Streams, changes, flows

ID = "3f2a9c1e-0000-4000-8000-00000000000a"


class Glance(BaseModel):
    """As an overview, with what the stream looks at."""

    at: float
    rollout: str
    backends: list[dict[str, Any]]


class World:
    """A stream and what it tells of."""

    def __init__(self) -> None:
        self.events, self.directory = EventLog(), Directory(100, 60.0)
        self.glance = Glance(at=1.0, rollout="idle", backends=[{"name": "a", "requests": 1, "url": "x"}])
        self.looks = 0
        self.streams = Streams(self._look, self.events, self.directory)

    def _look(self) -> Glance:
        self.looks += 1
        return self.glance.model_copy(deep=True)

    async def hear(self, kinds: int, *, only_changes: bool = True) -> list[tuple[str, Any]]:
        """The first blocks that a follower is told, but for the retry time."""
        return await self.hear_until(lambda heard: len(heard) == kinds, only_changes=only_changes)

    async def hear_until(
        self, enough: Callable[[list[tuple[str, Any]]], bool], *, only_changes: bool = True
    ) -> list[tuple[str, Any]]:
        """All of them until it is enough."""
        heard: list[tuple[str, Any]] = []
        async with asyncio.timeout(10):
            async for block in self.streams.follow(0, state=True, only_changes=only_changes):
                fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
                if "event" in fields:
                    heard.append((fields["event"], json.loads(fields["data"])))
                    self.glance.backends[0]["requests"] += 1
                if enough(heard):
                    break
        return heard


def test_only_what_has_changed() -> None:
    """Fields that are as they were, and backends of which all are, are left out."""
    old = {
        "at": 1,
        "rollout": "idle",
        "backends": [{"name": "a", "n": 1, "u": 2}, {"name": "b", "n": 1, "u": 2}],
    }
    new = {
        "at": 2,
        "rollout": "idle",
        "backends": [{"name": "a", "n": 1, "u": 2}, {"name": "b", "n": 3, "u": 2}],
    }
    assert changes(old, new) == {"at": 2, "backends": [{"name": "b", "n": 3}]}


def test_another_fleet_is_told_whole() -> None:
    """A backend that came, left or stands elsewhere is no change of those that are known."""
    old = {"backends": [{"name": "a"}, {"name": "b"}]}
    for names in ("a", "ba", "abc"):
        assert changes(old, {"backends": [{"name": name} for name in names]}) is None


def test_the_first_is_whole_and_the_next_are_changes() -> None:
    """Who asks for changes gets an overview first; who does not gets nothing else."""

    async def test() -> None:
        (first, told), (second, different) = await World().hear(2)
        assert (first, second) == ("overview", "changes")
        assert told["backends"] == [{"name": "a", "requests": 1, "url": "x"}]
        assert different == {"backends": [{"name": "a", "requests": 2}]}
        assert [kind for kind, _ in await World().hear(2, only_changes=False)] == ["overview", "overview"]

    asyncio.run(test())


def test_a_storm_of_events_makes_no_storm_of_overviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of many events the state is not told again; soon after the last of them it is."""
    monkeypatch.setattr(streams, "_BEAT", 60.0)  # without an event it is not told here

    async def test() -> None:
        world = World()

        async def storm() -> None:
            for number in range(100):
                world.events.record(EventKind.BACKEND, str(number), "a")
                await asyncio.sleep(0.002)

        task = asyncio.create_task(storm())
        began = monotonic()
        heard = await world.hear_until(
            lambda heard: [kind for kind, _ in heard].count("event") == 100 and heard[-1][0] == "changes"
        )
        await task
        assert world.looks <= 2 + (monotonic() - began) / streams._SOON, heard

    asyncio.run(test())


def test_followers_share_an_overview() -> None:
    """However many there are, it is made once for those who are told at the same time."""

    async def test() -> None:
        world = World()
        await asyncio.gather(*(world.hear(1) for _ in range(20)))
        assert world.looks == 1

    asyncio.run(test())


def test_moves_are_told_in_sum() -> None:
    """Those of a minute from one backend to another are one line; no session is named."""
    now = monotonic() // 60 * 60
    moves = [Move(now + 1, "a", "b", MoveReason.DOWN) for _ in range(3)]
    moves += [Move(now + 2, "a", "c", MoveReason.DOWN), Move(now + 61, "a", "b", MoveReason.DOWN)]
    told = flows(moves)
    assert [(one["origin"], one["target"], one["reason"], one["count"]) for one in told] == [
        ("a", "b", "down", 3),
        ("a", "c", "down", 1),
        ("a", "b", "down", 1),
    ]
    assert set(told[0]) == {"at", "origin", "target", "reason", "count"}


def test_the_last_moves_are_remembered() -> None:
    """Who asks later is told of those since then; of more than are kept, of the last."""
    directory = Directory(10, 60.0)
    a, b = Backend("a", "h", 1), Backend("b", "h", 2)
    session = directory.assign(ID, a, 0.0)
    directory.assign(ID, b, 1.0)
    assert directory.moves_after(0) == []  # it never connected: nobody noticed
    directory.opened(session)
    for step in range(1500):
        directory.assign(ID, (a, b)[step % 2], float(step))
    assert directory.noted == 1500
    assert len(directory.moves_after(0)) == 1000
    assert [move.at for move in directory.moves_after(1498)] == [1498.0, 1499.0]
    assert directory.moves_after(1500) == []
