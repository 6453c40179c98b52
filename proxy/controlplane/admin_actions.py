"""What an operator can tell a running proxy: the part of the API that changes something.

Each of these answers with what is so now. A wish that cannot be carried out is refused with its reason.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from pydantic import BaseModel, Field

from proxy import net
from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Verdict
from proxy.controlplane.drains import Drain, Drains
from proxy.controlplane.reload import Reload
from proxy.controlplane.rollout import RolloutError, RolloutProgress
from proxy.controlplane.wants import Wish
from proxy.words import no_backend

WANTED = {"wanted": 3, "low": 2, "high": 8, "serving": 3, "late": [], "answers": 70, "sessions": 400,
          "reason": "70 answers and 400 sessions fill 1.60; 1 to spare"}  # fmt: skip

FOR_HOOKS = frozenset(
    (
        ("GET", "/api/backends/{name}"),
        ("POST", "/api/backends/{name}/drain"),
        ("POST", "/api/backends/{name}/ready"),
    )
)
"""Methods and routes for which `admin.hook_token` is good."""


@dataclass(frozen=True, slots=True)
class AdminActions:
    """What the API acts on; made by the app."""

    fleet: Fleet
    drains: Drains
    reload: Callable[[], Awaitable[Reload]]
    begin_rollout: Callable[[float | None], None]  # raises RolloutError
    rollout: Callable[[], RolloutProgress]


class DrainStatus(BaseModel):
    """How far a drain is."""

    seconds_left: float = Field(description="Until the deadline; less than 0 after it.", examples=[297.4])
    sent_away: int = Field(description="Sessions that were at rest when they had to leave.", examples=[12])
    forced: int = Field(
        description="Sessions that were in the middle of an answer at the deadline.", examples=[0]
    )
    empty: bool = Field(description="Whether nothing is left of it.", examples=[False])
    until_restart: bool = Field(
        description="Whether it ends by itself when the backend has been restarted.", examples=[False]
    )


class BackendStatus(BaseModel):
    """One backend as the API shows it."""

    name: str = Field(description="As it is configured, or was found.", examples=["replica-1"])
    url: str = Field(description="Where it is.", examples=["http://127.0.0.1:8001"])
    weight: float = Field(description="Its share of new sessions.", examples=[1.0])
    health: Verdict = Field(description="The verdict of probes and traffic.", examples=["healthy"])
    reason: str = Field(
        description="Why it is not healthy; empty while it is, or before it was first probed.",
        examples=["nobody listens at 127.0.0.1:8001 (connection refused)"],
    )
    since: float = Field(description="When the verdict was reached, in unix time.", examples=[1700000000.5])
    admin_state: AdminState = Field(description="The operator's wish.", examples=["ready"])
    takes_sessions: bool = Field(description="Whether new sessions are placed here.", examples=[True])
    sessions: int = Field(description="Sessions that are open here, or were just placed.", examples=[41])
    most_sessions: int = Field(description="How many there may be, 0 for any number.", examples=[50])
    tunnels: int = Field(description="Open websockets and other upgraded connections.", examples=[40])
    unanswered: int = Field(
        description="Requests and probes that it should have answered at once, and has not.", examples=[0]
    )
    pid: int | None = Field(default=None, description="The process, for a local replica.", examples=[4711])
    leaving: bool = Field(description="Whether it leaves the fleet when it is empty.", examples=[False])
    drain: DrainStatus | None = Field(default=None, description="While it drains.", examples=[None])


class DrainRequest(BaseModel):
    """How a backend is to be drained."""

    model_config = {"extra": "forbid"}

    timeout: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds until everything has to leave; timeouts.drain if it is not given.",
        examples=[60],
    )
    until: Literal["restart"] | None = Field(
        default=None,
        description="With restart the drain ends by itself when the backend was away and answers again, or"
        " answers at another address. It leaves alone what an operator wished: maintenance, and a drain"
        " without this.",
        examples=["restart"],
    )
    force: bool = Field(
        default=False,
        description="Also the only backend that takes new sessions; until restart it needs no force.",
        examples=[False],
    )


class MaintenanceRequest(BaseModel):
    """How a backend is to be taken out."""

    model_config = {"extra": "forbid"}

    force: bool = Field(
        default=False, description="Also the only backend that takes new sessions.", examples=[False]
    )


class ReadyRequest(BaseModel):
    """What `ready` is to end."""

    model_config = {"extra": "forbid"}

    until: Literal["restart"] | None = Field(
        default=None,
        description="With restart nothing but a drain that was asked for with the same word.",
        examples=["restart"],
    )


class RolloutRequest(BaseModel):
    """How replicas are to be replaced."""

    model_config = {"extra": "forbid"}

    timeout: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that the drain of each may take; timeouts.drain if it is not given.",
        examples=[60],
    )


class RolloutStatus(BaseModel):
    """How far the newest rollout is."""

    state: str = Field(description="idle, running, failed or done.", examples=["running"])
    phase: str | None = Field(
        description="What it is at: starting, checking, draining or stopping.", examples=["draining"]
    )
    done: int = Field(description="Replicas that were replaced.", examples=[1])
    total: int = Field(description="Replicas that were to be replaced.", examples=[4])
    old: str = Field(description="Whose turn it is, or was.", examples=["replica-2"])
    new: str = Field(description="What takes its place.", examples=["replica-6"])
    reason: str = Field(
        description="Why it failed; empty if it did not.", examples=["replica-6 did not become healthy"]
    )


class QueueStatus(BaseModel):
    """Who waits because every backend has balance.most_sessions sessions."""

    waiting: int = Field(description="Now.", examples=[12])
    kept: int = Field(description="Who was let in, and whose session has not come yet.", examples=[2])
    admitted: int = Field(description="Who has waited and was let in, since the start.", examples=[40])
    given_up: int = Field(description="Who has waited and asked no more.", examples=[3])
    turned_away: int = Field(description="Questions of those who found the queue full.", examples=[0])


class WantedStatus(BaseModel):
    """How many backends are wanted for what goes on, and why."""

    wanted: int = Field(description="Within the bounds, where there are any.", examples=[3])
    low: int | None = Field(description="The lower bound of replicas.count; null without.", examples=[2])
    high: int | None = Field(description="The upper bound of it; null without.", examples=[8])
    serving: int = Field(description="Backends that share the work now.", examples=[3])
    late: list[str] = Field(description="Those whose event loop answers late.", examples=[[]])
    answers: int = Field(description="Sessions whose app is answering.", examples=[70])
    sessions: int = Field(description="Open sessions.", examples=[400])
    reason: str = Field(
        description="Why, in words.", examples=["70 answers and 400 sessions fill 1.60; 1 to spare"]
    )


class ReloadStatus(BaseModel):
    """How a reload went."""

    applied: bool = Field(
        description="Whether the file is in effect; if not, the old one is.", examples=[True]
    )
    at: float = Field(description="When, in unix time.", examples=[1700000000.5])
    problems: list[str] = Field(description="Why it was refused, in the words of `check`.", examples=[[]])
    changes: list[str] = Field(description="Sections that are different now.", examples=[["backends"]])
    restart: list[str] = Field(
        description="Keys that take effect with the next start only.", examples=[["listen"]]
    )


def speaks_for_others(fleet: Fleet, peer: str, name: str) -> bool:
    """Whether a client at this address is one of the backends, and not the one that it names.

    An address that no backend is at tells nothing: hooks may come by another network, or through a gateway.
    Nobody speaks for a backend that has left: it may hear so, wherever it is.
    """
    address = peer.removeprefix("::ffff:")
    there = {
        other.name
        for other in fleet
        if other.health.verdict is not Verdict.DOWN and net.last_address(other.host) == address
    }
    return bool(there) and name not in there and fleet.get(name) is not None


def _by_hook(request: Request) -> bool:
    """Whether it came with a token of hooks, which moves nothing that an operator wished."""
    return bool(getattr(request.state, "by_hook", False))


def backend_status(backend: Backend, drains: Drains) -> BackendStatus:
    """What the API shows of a backend."""
    return BackendStatus(
        name=backend.name,
        url=backend.url,
        weight=backend.weight,
        health=backend.health.verdict,
        reason=backend.health.reason,
        since=round(time.time() - monotonic() + backend.health.since, 1),
        admin_state=backend.admin_state,
        takes_sessions=backend.takes_sessions,
        sessions=backend.sessions,
        most_sessions=backend.most_sessions,
        tunnels=backend.tunnels,
        unanswered=backend.unanswered,
        pid=backend.pid,
        leaving=backend.leaving,
        drain=_drain_status(drains.get(backend)),
    )


def _drain_status(drain: Drain | None) -> DrainStatus | None:
    if drain is None:
        return None
    return DrainStatus(
        seconds_left=round(drain.deadline - monotonic(), 1),
        sent_away=drain.sent_away,
        forced=drain.forced,
        empty=drain.is_empty,
        until_restart=drain.until_restart,
    )


def rollout_status(progress: RolloutProgress) -> RolloutStatus:
    """What the API shows of a rollout."""
    return RolloutStatus(
        state=str(progress.state.value),
        phase=str(progress.phase.value) if progress.phase else None,
        done=progress.done,
        total=progress.total,
        old=progress.old,
        new=progress.new,
        reason=progress.reason,
    )


def wanted_status(wish: Wish) -> WantedStatus:
    """What the API shows of how many are wanted."""
    load = wish.load
    return WantedStatus(
        wanted=wish.wanted,
        low=wish.low,
        high=wish.high,
        serving=load.serving,
        late=list(load.late),
        answers=load.answers,
        sessions=load.sessions,
        reason=wish.reason,
    )


def reload_status(result: Reload) -> ReloadStatus:
    """What the API shows of a reload."""
    return ReloadStatus(
        applied=result.applied,
        at=result.at,
        problems=list(result.problems),
        changes=list(result.changes),
        restart=list(result.restart),
    )


def _unknown(fleet: Fleet, name: str) -> HTTPException:
    """Who has left is told from who never was here: its hook has nothing to wait for."""
    left = fleet.has_left(name)
    return HTTPException(410 if left else 404, no_backend(name, [other.name for other in fleet], left=left))


def _keep_one(fleet: Fleet, backend: Backend, *, force: bool) -> None:
    """An operator does not take the last one that takes new sessions by mistake. Raises HTTPException."""
    others = any(other.takes_sessions for other in fleet if other is not backend)
    if backend.takes_sessions and not (others or force):
        raise HTTPException(
            409,
            f"{backend.name} is the only backend that takes new sessions: without it nobody can begin a"
            ' chat. To do it all the same, say --force (in the API "force": true)',
        )


def add_actions(app: FastAPI, actions: AdminActions, guarded: Any) -> None:
    """Add the routes; `guarded` is what asks for the token."""
    fleet, drains = actions.fleet, actions.drains
    asked: dict[str, Any] = {"dependencies": [guarded]}

    async def known(
        name: Annotated[str, Path(description="Which backend.", examples=["replica-1"])],
    ) -> Backend:
        backend = fleet.get(name)
        if backend is None:
            raise _unknown(fleet, name)
        return backend

    Known = Annotated[Backend, Depends(known)]  # noqa: N806 - a type

    async def staying(backend: Known) -> Backend:
        if backend.leaving:
            raise HTTPException(409, f"{backend.name} is about to leave the fleet")
        return backend

    Staying = Annotated[Backend, Depends(staying)]  # noqa: N806 - a type

    @app.get("/api/backends", **asked)
    async def backends() -> list[BackendStatus]:
        """All backends, in the order of the configuration."""
        return [backend_status(backend, drains) for backend in fleet]

    @app.get("/api/backends/{name}", **asked)  # noqa: FAST003 - `known` takes it
    async def backend(backend: Known) -> BackendStatus:
        """One backend."""
        return backend_status(backend, drains)

    @app.post("/api/backends/{name}/drain", **asked)  # noqa: FAST003 - `known` takes it
    async def drain(backend: Known, http: Request, request: DrainRequest | None = None) -> BackendStatus:
        """No new sessions; those it has leave when at rest, or when the time is up. 409 for the last one."""
        wish = request or DrainRequest()
        until_restart = wish.until is not None or _by_hook(http)
        _keep_one(fleet, backend, force=wish.force or until_restart)
        drains.drain_for(backend, wish.timeout, until_restart=until_restart)
        return backend_status(backend, drains)

    @app.post("/api/backends/{name}/ready", **asked)  # noqa: FAST003 - `known` takes it
    async def ready(backend: Staying, http: Request, request: ReadyRequest | None = None) -> BackendStatus:
        """Take sessions again, with a slow start."""
        if (request and request.until) or _by_hook(http):
            drains.restarted(backend)
        else:
            drains.ready(backend)
        return backend_status(backend, drains)

    @app.post("/api/backends/{name}/maintenance", **asked)  # noqa: FAST003 - `known` takes it
    async def maintenance(backend: Staying, request: MaintenanceRequest | None = None) -> BackendStatus:
        """Take it out now: its sessions move at once; 409 as for a drain."""
        _keep_one(fleet, backend, force=request is not None and request.force)
        drains.maintenance(backend)
        return backend_status(backend, drains)

    @app.post("/api/reload", **asked, responses={409: {"model": ReloadStatus}})
    async def reload(response: Response) -> ReloadStatus:
        """Read the configuration again; 409 if it has mistakes: then the old one stays in effect."""
        result = await actions.reload()
        if not result.applied:
            response.status_code = 409
        return reload_status(result)

    @app.get("/api/rollout", **asked)
    async def rollout() -> RolloutStatus:
        """How far the newest rollout is."""
        return rollout_status(actions.rollout())

    @app.post("/api/rollout", status_code=202, **asked)
    async def begin_rollout(request: RolloutRequest | None = None) -> RolloutStatus:
        """Replace the replicas of `run` by new ones, one after the other; 409 if that cannot begin."""
        try:
            actions.begin_rollout(request.timeout if request else None)
        except RolloutError as reason:
            raise HTTPException(409, str(reason)) from None
        return rollout_status(actions.rollout())
