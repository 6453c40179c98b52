"""What an operator can see of a running proxy: the part of the API that changes nothing.

A session id opens a session, so the API never tells a whole one: it shows the beginning, and finds a session
by that or by the whole.
"""

import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Query
from fastapi import Path as InPath
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

import proxy
from proxy.affinity.backend import Backend
from proxy.affinity.evidence import Evidence
from proxy.affinity.pins import split_pin
from proxy.affinity.router import Router
from proxy.affinity.session import MoveReason, Session
from proxy.build import BUILD, Build
from proxy.config import Config
from proxy.config.dump import plain
from proxy.controlplane.admin_actions import (
    WANTED,
    AdminActions,
    BackendStatus,
    QueueStatus,
    RolloutStatus,
    WantedStatus,
    backend_status,
    rollout_status,
    wanted_status,
)
from proxy.controlplane.events import Event, EventKind, EventLog, Traffic
from proxy.controlplane.wants import Wish

SHOWN = 8  # characters of a session id: enough to tell sessions apart, useless to who finds them
STREAM = "/api/stream"
_BEAT = 1.0  # seconds between two states on a stream
_SILENCE = 15.0  # seconds after which a stream without states shows that it lives
_MOST_STREAMS = 50
_CONFIG = {"application/json": {"example": {"listen": ["0.0.0.0:8000"], "admin": {"token": "***"}}}}

After = Annotated[int, Query(ge=0, description="The number of the last event seen.", examples=[12])]


@dataclass(frozen=True, slots=True)
class AdminViews:
    """What the API shows; made by the app."""

    router: Router
    events: EventLog
    config: Callable[[], Config]
    traffic: Callable[[], Traffic]
    not_ready: Callable[[], str]  # why no new clients should come, "" if they may
    wish: Callable[[], Wish]  # how many backends are wanted


class MoveStatus(BaseModel):
    """One move of a session."""

    at: float = Field(description="When, in unix time.", examples=[1700000000.5])
    origin: str = Field(description="The backend that it left.", examples=["replica-1"])
    target: str = Field(description="The backend that it went to.", examples=["replica-2"])
    reason: MoveReason = Field(description="Why it had to.", examples=["down"])


class SessionStatus(BaseModel):
    """One session."""

    id: str = Field(description="The beginning of its id.", examples=["3f2a9c1e"])
    backend: str | None = Field(
        description="Where it lives; null while it was only announced.", examples=["replica-2"]
    )
    evidence: Evidence | None = Field(
        description="What named the session when it came there.", examples=["session"]
    )
    located: bool = Field(
        description="Whether that backend was asked and said that it holds the session.", examples=[False]
    )
    since: float = Field(description="When it came there, in unix time.", examples=[1700000000.5])
    open: int = Field(description="Its connections.", examples=[1])
    answering: bool = Field(description="Whether its app is answering.", examples=[False])
    sent_away: bool = Field(description="Whether it has to move when it is next heard of.", examples=[False])
    moves: list[MoveStatus] = Field(description="The last few, oldest first.", examples=[[]])


class SessionPage(BaseModel):
    """A page of sessions."""

    total: int = Field(description="How many there are in all.", examples=[0])
    sessions: list[SessionStatus] = Field(description="Open ones first.", examples=[[]])


class Where(BaseModel):
    """Where something belongs."""

    kind: Literal["session", "sid", "pin"] = Field(description="What was asked for.", examples=["session"])
    backend: str | None = Field(description="Where it belongs; null if nowhere yet.", examples=["replica-2"])
    holds: bool = Field(
        description="Whether it may go on there; if not, it moves when it is next heard of.", examples=[True]
    )
    why: str = Field(
        description="What told so, in words.", examples=["a new session, named by session: the hash chose"]
    )
    session: SessionStatus | None = Field(description="Its session, where that is known.", examples=[None])


class EventStatus(BaseModel):
    """One thing that happened."""

    id: int = Field(description="They count from 1 since the start.", examples=[12])
    at: float = Field(description="When, in unix time.", examples=[1700000000.5])
    kind: EventKind = Field(description="What it tells of.", examples=["backend"])
    backend: str = Field(description="Which backend it is about; empty for none.", examples=["replica-1"])
    text: str = Field(description="What happened, without that name.", examples=["is down: silent for 45 s"])
    lines: list[str] = Field(description="The last lines of a replica that ended.", examples=[[]])


class DecisionCount(BaseModel):
    """How often requests went by one evidence to one outcome."""

    evidence: str = Field(description="What named the session or the backend.", examples=["session"])
    outcome: str = Field(description="What became of it.", examples=["pinned"])
    count: int = Field(description="How often, since the start.", examples=[12])


class BackendTraffic(BackendStatus):
    """A backend with what it has done since the start."""

    turns: int = Field(description="Sessions whose app is answering.", examples=[3])
    requests: int = Field(description="Requests that ended.", examples=[1200])
    frames: int = Field(
        description="Frames of websockets, both ways; those that were read at once are one.", examples=[52000]
    )
    cpu_seconds: float | None = Field(
        description="CPU time of a local replica's process; null for others.", examples=[12.5]
    )
    failures: int = Field(
        description="Requests that were answered with 500 or more, or not at all.", examples=[0]
    )
    probes: int = Field(description="Answered probes.", examples=[300])
    probe_seconds: float = Field(description="What these took together.", examples=[0.9])


class Overview(BaseModel):
    """Everything at a glance; rates are the differences of two of these."""

    version: str = Field(description="That of the proxy.", examples=["0.1.0"])
    build: Build = Field(description="Whether its hot modules are compiled.", examples=["interpreted"])
    at: float = Field(description="When, in unix time.", examples=[1700000000.5])
    backends: list[BackendTraffic] = Field(description="In the order of the configuration.", examples=[[]])
    decisions: list[DecisionCount] = Field(description="By evidence and outcome.", examples=[[]])
    moves: dict[str, int] = Field(
        description="Sessions that moved since the start, by reason.", examples=[{"down": 2}]
    )
    rollout: RolloutStatus = Field(
        description="The newest one.",
        examples=[
            {"state": "idle", "phase": None, "done": 0, "total": 0, "old": "", "new": "", "reason": ""}
        ],
    )
    replicas: WantedStatus = Field(description="How many are wanted.", examples=[WANTED])
    queue: QueueStatus = Field(
        description="Who waits for a place.",
        examples=[{"waiting": 0, "kept": 0, "admitted": 0, "given_up": 0, "turned_away": 0}],
    )


def session_status(session: Session) -> SessionStatus:
    """What the API shows of a session."""
    started = time.time() - monotonic()  # what turns the times of the directory into unix time
    return SessionStatus(
        id=session.id[:SHOWN],
        backend=session.backend.name if session.backend else None,
        evidence=session.evidence,
        located=session.located,
        since=started + session.since,
        open=session.open,
        answering=session.in_turn,
        sent_away=session.sent_away,
        moves=[
            MoveStatus(at=started + move.at, origin=move.origin, target=move.target, reason=move.reason)
            for move in session.moves
        ],
    )


def event_status(event: Event) -> EventStatus:
    """What the API shows of an event."""
    return EventStatus(**asdict(event))


def cpu_seconds(pid: int | None) -> float | None:
    """The CPU time of a process, in user mode and in the kernel (proc(5), fields 14, 15); None: not known."""
    if pid is None:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
        return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None  # it has ended, or there is no such file system


def overview(actions: AdminActions, views: AdminViews) -> Overview:
    """Everything at a glance."""
    traffic = views.traffic()
    backends = []
    for backend in actions.fleet:
        probes, seconds = traffic.probes.get(backend.name, (0, 0.0))
        backends.append(
            BackendTraffic(
                **dict(backend_status(backend, actions.drains)),
                turns=traffic.turns.get(backend.name, 0),
                requests=traffic.requests.get(backend.name, 0),
                frames=traffic.frames.get(backend.name, 0),
                cpu_seconds=cpu_seconds(backend.pid),
                failures=traffic.failures.get(backend.name, 0),
                probes=probes,
                probe_seconds=seconds,
            )
        )
    return Overview(
        version=proxy.__version__,
        build=BUILD,
        at=time.time(),
        backends=backends,
        decisions=[DecisionCount(evidence=e, outcome=o, count=n) for e, o, n in traffic.decisions],
        moves={reason.value: count for reason, count in views.router.directory.moved.items()},
        rollout=rollout_status(actions.rollout()),
        replicas=wanted_status(views.wish()),
        queue=QueueStatus(**traffic.queue),
    )


def find(router: Router, wanted: str) -> Where | None:
    """Where a session id, its beginning, a sid or a pin belongs. Raises HTTPException if in doubt."""
    session = router.directory.get(wanted, monotonic())
    if session is not None:
        return _where("session", session.backend, _why(session), session)
    token, sid = split_pin(wanted.encode())
    engine = router.engines.get(sid)
    if engine is not None:
        why = (
            "the Engine.IO connection was opened there" if engine.decided else "a guess, until CONNECT tells"
        )
        return _where("sid", engine.backend, why, engine.session)
    backend = router.fleet.by_token(token or sid)
    if backend is not None:
        return _where("sid" if token else "pin", backend, "its pin names the backend", None)
    found = router.directory.starting_with(wanted, 2) if len(wanted) >= SHOWN else []
    if len(found) > 1:
        raise HTTPException(409, f"several sessions begin with {wanted!r}: give more of the id")
    return _where("session", found[0].backend, _why(found[0]), found[0]) if found else None


def _where(
    kind: Literal["session", "sid", "pin"], backend: Backend | None, why: str, session: Session | None
) -> Where:
    holds = session.stays if session is not None else backend is not None and backend.holds_pins
    name = backend.name if backend else None
    shown = session_status(session) if session else None
    return Where(kind=kind, backend=name, holds=holds, why=why, session=shown)


def _why(session: Session) -> str:
    if session.backend is None:
        return "the page has announced it; it is placed when it connects"
    if session.located:
        return "the backend was asked and said that it holds the session"
    if session.moves and session.moves[-1].target == session.backend.name:
        move = session.moves[-1]
        return f"it had to leave {move.origin} ({move.reason.value}), and the hash chose this one"
    return f"a new session, named by {session.evidence or 'nothing'}: the hash chose"


def add_views(app: FastAPI, actions: AdminActions, views: AdminViews, guarded: Any) -> None:
    """Add the routes; `guarded` is what asks for the token."""
    asked: dict[str, Any] = {"dependencies": [guarded]}
    streams = Streams(lambda: overview(actions, views), views.events)

    @app.get("/api/where/{wanted}", **asked)
    async def where(
        wanted: Annotated[str, InPath(description="What is looked for.", examples=["3f2a9c1e"])],
    ) -> Where:
        """Where a session id, its beginning (8 characters or more), an Engine.IO sid or a pin belongs."""
        found = find(views.router, wanted)
        if found is None:
            raise HTTPException(
                404,
                "no session, sid or pin of that name is known: it has not come through this proxy since it"
                " started, was forgotten after affinity.session_timeout, or its backend is gone",
            )
        return found

    @app.get("/api/sessions", **asked)
    async def sessions(
        backend: Annotated[
            str | None, Query(description="Only those of this backend.", examples=["replica-1"])
        ] = None,
        offset: Annotated[int, Query(ge=0, description="How many to pass over.", examples=[100])] = 0,
        limit: Annotated[int, Query(ge=1, le=500, description="How many to show.", examples=[100])] = 100,
    ) -> SessionPage:
        """The sessions that are known, open ones first, page by page; those of one backend if it is named."""
        known = views.router.directory.sessions()
        if backend is not None:
            known = [s for s in known if s.backend is not None and s.backend.name == backend]
        page = known[offset : offset + limit]
        return SessionPage(total=len(known), sessions=[session_status(session) for session in page])

    @app.get("/api/events", **asked)
    async def events(after: After = 0) -> list[EventStatus]:
        """The last events, oldest first; only those after a number if it is given."""
        return [event_status(event) for event in views.events.after(after)]

    @app.get(STREAM, **asked, response_class=StreamingResponse)
    async def stream(
        state: Annotated[
            bool, Query(description="Whether an overview is told each second.", examples=[True])
        ] = False,
        after: After = 0,
        last_event_id: Annotated[
            int | None, Header(ge=0, description="As `after`: what browsers send.", examples=[12])
        ] = None,
    ) -> StreamingResponse:
        """Server-sent events: `event` for what happens, and with `state` an `overview` every second."""
        if streams.full:
            raise HTTPException(503, "the proxy ends, or too many follow it already")
        seen = after if last_event_id is None else last_event_id
        return StreamingResponse(streams.follow(seen, state=state), media_type="text/event-stream")

    @app.get("/api/overview", **asked)
    async def glance() -> Overview:
        """All backends with their counts, affinity and the rollout; rates are the differences of two."""
        return overview(actions, views)

    @app.get("/api/replicas", **asked)
    async def replicas() -> WantedStatus:
        """How many backends are wanted for what goes on, and why."""
        return wanted_status(views.wish())

    @app.get("/api/config", **asked, responses={200: {"content": _CONFIG}})
    async def config() -> dict[str, Any]:
        """The configuration that is in effect, secrets masked."""
        told = plain(views.config())
        assert isinstance(told, dict)
        return told


class Streams:
    """The server-sent events of all who follow."""

    def __init__(self, overview: Callable[[], Overview], events: EventLog) -> None:
        self._overview = overview
        self._events = events
        self._open = 0

    @property
    def full(self) -> bool:
        """Whether nobody may follow any more."""
        return self._events.closed or self._open >= _MOST_STREAMS

    async def follow(self, seen: int, *, state: bool) -> AsyncIterator[str]:
        """What one follower is told, until the followers are told to go or it is cancelled."""
        events, begun = self._events, self._events.rounds
        self._open += 1
        try:
            yield "retry: 1000\n\n"  # milliseconds until a browser comes back
            while events.rounds == begun:
                news = events.after(seen)
                for event in news:
                    seen = event.id
                    yield f"id: {seen}\nevent: event\ndata: {event_status(event).model_dump_json()}\n\n"
                if state:
                    yield f"event: overview\ndata: {self._overview().model_dump_json()}\n\n"
                elif not news:
                    yield ": alive\n\n"
                await events.news(_BEAT if state else _SILENCE)
        finally:
            self._open -= 1

    def __repr__(self) -> str:
        return f"<Streams open={self._open}>"
