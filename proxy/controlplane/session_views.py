"""What an operator can see of sessions: where each is, how it came there, and where something belongs.

A session id opens a session, so the API never tells a whole one: it shows the beginning, and finds a session
by that or by the whole.
"""

import time
from collections.abc import Callable, Collection
from time import monotonic
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import FastAPI, HTTPException, Query
from fastapi import Path as InPath
from pydantic import BaseModel, Field

from proxy.affinity.backend import Backend
from proxy.affinity.evidence import Evidence
from proxy.affinity.pins import split_pin
from proxy.affinity.router import Router
from proxy.affinity.session import MoveReason, Session
from proxy.words import no_backend

SHOWN = 8  # characters of a session id: enough to tell sessions apart, useless to who finds them


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
    began: float = Field(
        description="When this proxy first heard of it, in unix time.", examples=[1700000000.5]
    )
    since: float = Field(description="When it came there, in unix time.", examples=[1700000000.5])
    transport: Literal["websocket", "polling"] | None = Field(
        description="How it is connected: a session that has a websocket counts as one; null without a"
        " connection.",
        examples=["websocket"],
    )
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
    why: str = Field(description="What told so, in words.", examples=["it was placed there when it began"])
    session: SessionStatus | None = Field(description="Its session, where that is known.", examples=[None])


def session_status(session: Session, websockets: Collection[Session]) -> SessionStatus:
    """What the API shows of a session; `websockets` are those that have one."""
    started = time.time() - monotonic()  # what turns the times of the directory into unix time
    return SessionStatus(
        id=session.id[:SHOWN],
        backend=session.backend.name if session.backend else None,
        evidence=session.evidence,
        located=session.located,
        began=started + session.began,
        since=started + session.since,
        transport=("websocket" if session in websockets else "polling") if session.open else None,
        open=session.open,
        answering=session.in_turn,
        sent_away=session.sent_away,
        moves=[
            MoveStatus(at=started + move.at, origin=move.origin, target=move.target, reason=move.reason)
            for move in session.moves
        ],
    )


_WHICH = {
    MoveReason.DOWN: "which was down",
    MoveReason.GONE: "which had left the fleet",
    MoveReason.MAINTENANCE: "which was taken out",
    MoveReason.SENT_AWAY: "which it was sent away from, by a drain, a rollout or a rebalance",
    MoveReason.AVOIDED: "which did not accept in time",
    MoveReason.ALONE: "which other proxies could not be told of",
}


class _Found(NamedTuple):
    """Where something belongs, as far as this proxy knows."""

    kind: Literal["session", "sid", "pin"]
    backend: Backend | None
    why: str
    session: Session | None


def find(router: Router, wanted: str) -> _Found | None:
    """Where a session id, its beginning, a sid or a pin belongs. Raises HTTPException if in doubt."""
    session = router.directory.get(wanted, monotonic())
    if session is not None:
        return _Found("session", session.backend, _why(session), session)
    token, sid = split_pin(wanted.encode())
    engine = router.engines.get(sid)
    if engine is not None:
        why = (
            "the Engine.IO connection was opened there"
            if engine.decided
            else "a guess, until the client has named its session"
        )
        return _Found("sid", engine.backend, why, engine.session)
    backend = router.fleet.by_token(token or sid)
    if backend is not None:
        return _Found("sid" if token else "pin", backend, "its pin names the backend", None)
    found = router.directory.starting_with(wanted, 2) if len(wanted) >= SHOWN else []
    if len(found) > 1:
        raise HTTPException(409, f"several sessions begin with {wanted!r}: give more of the id")
    return _Found("session", found[0].backend, _why(found[0]), found[0]) if found else None


def _where(found: _Found, websockets: Collection[Session]) -> Where:
    kind, backend, why, session = found
    holds = session.stays if session is not None else backend is not None and backend.holds_pins
    name = backend.name if backend else None
    shown = session_status(session, websockets) if session else None
    return Where(kind=kind, backend=name, holds=holds, why=why, session=shown)


def _why(session: Session) -> str:
    if session.backend is None:
        return "the page has announced it; it is placed when it connects"
    if session.located:
        return "the backend was asked and said that it holds the session"
    if session.moves and session.moves[-1].target == session.backend.name:
        move = session.moves[-1]
        return f"it moved there from {move.origin}, {_WHICH[move.reason]}"
    return "it was placed there when it began"


def add_session_views(
    app: FastAPI, router: Router, websockets: Callable[[], Collection[Session]], guarded: Any
) -> None:
    """Add the routes; `websockets` tells the sessions that have one, `guarded` is what asks for the token."""
    asked: dict[str, Any] = {"dependencies": [guarded]}

    @app.get("/api/where/{wanted}", **asked)
    async def where(
        wanted: Annotated[str, InPath(description="What is looked for.", examples=["3f2a9c1e"])],
    ) -> Where:
        """Where a session id, its beginning (8 characters or more), an Engine.IO sid or a pin belongs."""
        found = find(router, wanted)
        if found is None:
            raise HTTPException(
                404,
                "no session, sid or pin of that name is known here: it has not come through this proxy since"
                " it started, or it ended longer ago than affinity.session_timeout",
            )
        return _where(found, websockets())

    @app.get("/api/sessions", **asked)
    async def sessions(
        backend: Annotated[
            str | None, Query(description="Only those of this backend.", examples=["replica-1"])
        ] = None,
        offset: Annotated[int, Query(ge=0, description="How many to pass over.", examples=[100])] = 0,
        limit: Annotated[int, Query(ge=1, le=500, description="How many to show.", examples=[100])] = 100,
        connected: Annotated[
            bool, Query(description="Only those with an open connection.", examples=[True])
        ] = False,
    ) -> SessionPage:
        """The sessions that are known, open ones first, page by page; those of one backend if it is named."""
        directory = router.directory
        known = directory.open() if connected else directory.sessions()
        if backend is not None:
            known = [s for s in known if s.backend is not None and s.backend.name == backend]
            if not known and router.fleet.get(backend) is None:
                raise HTTPException(404, no_backend(backend, [other.name for other in router.fleet]))
        page, sockets = known[offset : offset + limit], websockets()
        return SessionPage(total=len(known), sessions=[session_status(session, sockets) for session in page])
