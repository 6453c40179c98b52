"""What an operator can see of a running proxy: the part of the API that changes nothing.

Here is what is seen at a glance; sessions are in `session_views`, what is told as it happens in `streams`.
"""

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

import proxy
from proxy.affinity.router import Router
from proxy.affinity.session import Session
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
from proxy.controlplane.events import EventLog, Traffic
from proxy.controlplane.recent import Lately, Percentiles
from proxy.controlplane.session_views import add_session_views
from proxy.controlplane.streams import add_streams
from proxy.controlplane.wants import Wish

_CONFIG = {"application/json": {"example": {"listen": ["0.0.0.0:8000"], "admin": {"token": "***"}}}}


@dataclass(frozen=True, slots=True)
class AdminViews:
    """What the API shows; made by the app."""

    router: Router
    events: EventLog
    config: Callable[[], Config]
    traffic: Callable[[], Traffic]
    not_ready: Callable[[], str]  # why no new clients should come, "" if they may
    wish: Callable[[], Wish]  # how many backends are wanted
    lately: Callable[[], Lately]  # what happened in the last minutes
    websockets: Callable[[], Collection[Session]]  # the sessions that have one


class DecisionCount(BaseModel):
    """How often requests went by one evidence to one outcome."""

    evidence: str = Field(description="What named the session or the backend.", examples=["session"])
    outcome: str = Field(description="What became of it.", examples=["pinned"])
    count: int = Field(description="How often, since the start.", examples=[12])


class TimesStatus(BaseModel):
    """How long something took in the last minutes: percentiles, in seconds."""

    what: str = Field(
        description="prompt (the first byte of what any app answers at once: pages, files, handshakes),"
        " first_byte (of everything, polls that wait for news included), connect (to a backend), probe"
        " (answered ones), or hand_over.",
        examples=["prompt"],
    )
    count: int = Field(description="How many there were.", examples=[812])
    p50: float = Field(description="Half of them took no longer.", examples=[0.004])
    p95: float = Field(description="95 of 100 took no longer.", examples=[0.012])
    p99: float = Field(description="99 of 100 took no longer.", examples=[0.031])


class LatelyCount(BaseModel):
    """How often something happened in the last minutes."""

    group: str = Field(
        description="answer, aborted, upstream, limit, odd_id, held, retry, internal, move or hand_over.",
        examples=["limit"],
    )
    what: str = Field(description="The word for it in the metrics.", examples=["requests_per_second"])
    count: int = Field(description="How often.", examples=[3])


class LatelyStatus(BaseModel):
    """The last minutes."""

    seconds: float = Field(description="How far that looks back.", examples=[300.0])
    times: list[TimesStatus] = Field(description="What was measured.", examples=[[]])
    counts: list[LatelyCount] = Field(description="What happened at all.", examples=[[]])


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
    p50: float | None = Field(
        description="As `prompt` in `lately`, for this backend; null if there was none.", examples=[0.004]
    )
    p95: float | None = Field(description="The same.", examples=[0.012])
    troubles: int = Field(
        description="Its answers with 500 or more and its broken connections, in the last minutes.",
        examples=[0],
    )


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
    not_ready: str = Field(
        description="Why no new clients should be sent here, as /readyz says; empty if they may.",
        examples=[""],
    )
    lately: LatelyStatus = Field(
        description="What happened in the last minutes.",
        examples=[{"seconds": 300.0, "times": [], "counts": []}],
    )
    queue: QueueStatus = Field(
        description="Who waits for a place.",
        examples=[{"waiting": 0, "kept": 0, "admitted": 0, "given_up": 0, "turned_away": 0}],
    )


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
    traffic, lately = views.traffic(), views.lately()
    prompt = lately.by_backend.get("prompt", {})
    backends = []
    for backend in actions.fleet:
        name = backend.name
        probes, seconds = traffic.probes.get(name, (0, 0.0))
        took = prompt.get(name)
        backends.append(
            BackendTraffic(
                **dict(backend_status(backend, actions.drains)),
                turns=traffic.turns.get(name, 0),
                requests=traffic.requests.get(name, 0),
                frames=traffic.frames.get(name, 0),
                cpu_seconds=cpu_seconds(backend.pid),
                failures=traffic.failures.get(name, 0),
                probes=probes,
                probe_seconds=round(seconds, 6),
                p50=_rounded(took.p50) if took else None,
                p95=_rounded(took.p95) if took else None,
                troubles=lately.troubles.get(name, 0),
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
        not_ready=views.not_ready(),
        lately=lately_status(lately),
        queue=QueueStatus(**traffic.queue),
    )


def lately_status(lately: Lately) -> LatelyStatus:
    """What the API shows of the last minutes."""
    return LatelyStatus(
        seconds=round(lately.seconds),
        times=[_times_status(what, took) for what, took in lately.times.items()],
        counts=[
            LatelyCount(group=group, what=what, count=count) for (group, what), count in lately.counts.items()
        ],
    )


def _times_status(what: str, took: Percentiles) -> TimesStatus:
    rounded = {key: _rounded(getattr(took, key)) for key in ("p50", "p95", "p99")}
    return TimesStatus(what=what, count=took.count, **rounded)


def _rounded(seconds: float) -> float:
    """To what a histogram of powers of two knows, and more."""
    return float(f"{seconds:.3g}")


def add_views(app: FastAPI, actions: AdminActions, views: AdminViews, guarded: Any) -> None:
    """Add the routes; `guarded` is what asks for the token."""
    asked: dict[str, Any] = {"dependencies": [guarded]}

    add_session_views(app, views.router, views.websockets, guarded)
    add_streams(app, lambda: overview(actions, views), views.events, views.router.directory, guarded)

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
