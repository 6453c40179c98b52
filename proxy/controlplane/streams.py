"""What is told as it happens: server-sent events for all who follow, the admin listener's page among them.

A follower gets the events that it has not seen, and if it wants an overview each second, or what has changed
in it, and the moves of sessions. An overview is made once for all who follow, and soon after an event, but
not after each of many. None of it tells of a single session.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from math import inf
from time import monotonic, time
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from proxy.affinity.directory import Directory
from proxy.affinity.session import Move
from proxy.controlplane.events import Event, EventKind, EventLog

STREAM = "/api/stream"
_BEAT = 1.0  # seconds between two states on a stream
_SOON = 0.25  # seconds between two of them when something happened
_SHARED = 0.1  # seconds for which an overview is as good as new for the next follower
_SILENCE = 15.0  # seconds after which a stream without states shows that it lives
_MOST_STREAMS = 50
_MOST_FLOWS = 100  # that are told at once: more is a storm, of which nobody reads each

After = Annotated[int, Query(ge=0, description="The number of the last event seen.", examples=[12])]
State = dict[str, Any]


class EventStatus(BaseModel):
    """One thing that happened."""

    id: int = Field(
        description="Greater than that of any event before, of an earlier process too.",
        examples=[1700000000512],
    )
    at: float = Field(description="When, in unix time.", examples=[1700000000.5])
    kind: EventKind = Field(description="What it tells of.", examples=["backend"])
    backend: str = Field(description="Which backend it is about; empty for none.", examples=["replica-1"])
    text: str = Field(description="What happened, without that name.", examples=["is down: silent for 45 s"])
    lines: list[str] = Field(description="The last lines of a replica that ended.", examples=[[]])


def event_status(event: Event) -> EventStatus:
    """What the API shows of an event."""
    return EventStatus(**asdict(event))


def changes(before: State, now: State) -> State | None:
    """What is different in the overview `now`; None if other backends are there, or in another order.

    Of each backend that differs, its name and the fields that do.
    """
    old, new = before["backends"], now["backends"]
    if [each["name"] for each in old] != [each["name"] for each in new]:
        return None
    different = {key: value for key, value in now.items() if value != before[key]}
    different["backends"] = [
        {"name": one["name"], **{key: value for key, value in one.items() if value != was[key]}}
        for was, one in zip(old, new, strict=True)
        if one != was
    ]
    return different


def flows(moves: list[Move]) -> list[State]:
    """Moves of sessions, those of one minute that have origin, target and reason in common as one."""
    offset = time() - monotonic()  # what turns the times of the directory into unix time
    counts: Counter[tuple[int, str, str, str]] = Counter()
    newest: dict[tuple[int, str, str, str], float] = {}
    for move in moves:
        key = (int(move.at // 60), move.origin, move.target, move.reason.value)
        counts[key] += 1
        newest[key] = offset + move.at
    return [
        {"at": at, "origin": key[1], "target": key[2], "reason": key[3], "count": counts[key]}
        for key, at in sorted(newest.items(), key=lambda item: item[1])[-_MOST_FLOWS:]
    ]


class Streams:
    """The server-sent events of all who follow."""

    def __init__(self, overview: Callable[[], BaseModel], events: EventLog, directory: Directory) -> None:
        self._overview = overview
        self._events = events
        self._directory = directory
        self._open = 0
        self._latest: State = {}  # the newest overview
        self._made = -inf  # when that was made
        self._knows = 0  # the last event that it can know of

    @property
    def full(self) -> bool:
        """Whether nobody may follow any more."""
        return self._events.closed or self._open >= _MOST_STREAMS

    async def follow(self, seen: int, *, state: bool, only_changes: bool = False) -> AsyncIterator[str]:
        """What one follower is told, until the followers are told to go or it is cancelled."""
        events, begun = self._events, self._events.rounds
        knows, moved, told_at, told = 0, 0, -inf, None
        self._open += 1
        try:
            yield "retry: 1000\n\n"  # milliseconds until a browser comes back
            while events.rounds == begun:
                news = events.after(seen)
                for event in news:
                    seen = event.id
                    yield f"id: {seen}\nevent: event\ndata: {event_status(event).model_dump_json()}\n\n"
                if not state:
                    if not news:
                        yield ": alive\n\n"
                    await events.news(_SILENCE)
                    continue
                if monotonic() >= told_at + self._patience(knows):
                    told_at, latest = monotonic(), self._look()
                    knows = self._knows
                    yield _overview_event(told if only_changes else None, latest)
                    told = latest
                    if moves := flows(self._directory.moves_after(moved)):
                        yield f"event: moves\ndata: {_packed(moves)}\n\n"
                    moved = self._directory.noted
                await events.news(told_at + self._patience(knows) - monotonic())
        finally:
            self._open -= 1

    def _patience(self, knows: int) -> float:
        """How many seconds pass until the next overview, for who knows of these events by the last one."""
        return _BEAT if knows == self._events.last else _SOON

    def _look(self) -> State:
        """An overview, which may be one that another follower has just had made."""
        now = monotonic()
        if now - self._made >= _SHARED:
            self._made, self._knows = now, self._events.last
            self._latest = self._overview().model_dump(mode="json")
        return self._latest

    def __repr__(self) -> str:
        return f"<Streams open={self._open}>"


def _overview_event(told: State | None, latest: State) -> str:
    """An overview as it goes over the stream: what has changed in it, if a part is enough."""
    different = changes(told, latest) if told else None
    if different is None:
        return f"event: overview\ndata: {_packed(latest)}\n\n"
    return f"event: changes\ndata: {_packed(different)}\n\n"


def _packed(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def add_streams(
    app: FastAPI, overview: Callable[[], BaseModel], events: EventLog, directory: Directory, guarded: Any
) -> None:
    """Add the routes; `guarded` is what asks for the token."""
    asked: dict[str, Any] = {"dependencies": [guarded]}
    streams = Streams(overview, events, directory)

    @app.get("/api/events", **asked)
    async def last_events(after: After = 0) -> list[EventStatus]:
        """The last events, oldest first; only those after a number if it is given."""
        return [event_status(event) for event in events.after(after)]

    @app.get(STREAM, **asked, response_class=StreamingResponse)
    async def stream(
        state: Annotated[
            bool,
            Query(description="Whether an overview is told each second, and who moves.", examples=[True]),
        ] = False,
        changes: Annotated[
            bool,
            Query(
                description="With state: after the first overview only what differs, as `changes`, with the"
                " name of each backend that has changed and its fields that have.",
                examples=[True],
            ),
        ] = False,
        after: After = 0,
        last_event_id: Annotated[
            int | None, Header(ge=0, description="As `after`: what browsers send.", examples=[12])
        ] = None,
    ) -> StreamingResponse:
        """Server-sent events: `event` for what happens; with `state` also `overview` and `moves`."""
        if streams.full:
            raise HTTPException(503, "the proxy ends, or too many follow it already")
        seen = after if last_event_id is None else last_event_id
        told = streams.follow(seen, state=state, only_changes=changes)
        return StreamingResponse(told, media_type="text/event-stream")
