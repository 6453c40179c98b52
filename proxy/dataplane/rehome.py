"""The poll POST that carries a CONNECT packet: where its session lives, and moving its transport there.

The handshake went to a backend by a guess. If CONNECT names a session of another backend, a new Engine.IO
session is opened there with this client's own fields, its OPEN packet is swallowed, the client's sid
becomes an alias of the new one, and whatever of this transport waits at the wrong backend (a poll, a
websocket in the middle of its upgrade) is asked again at the right one. Then the POST goes there too.
"""

from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Protocol

from proxy.affinity.decision import Decision
from proxy.affinity.engine import EngineSession
from proxy.affinity.router import Asked, Locate, Located
from proxy.dataplane import upstream_heads
from proxy.dataplane.fetch import fetch
from proxy.dataplane.request import Request
from proxy.dataplane.site import Site
from proxy.errors import BadResponse, NoBackend, ProxyError, Retry
from proxy.wire.engineio import open_sid


class Post(Protocol):
    """What a move needs of the POST that named its session."""

    site: Site
    request: Request
    decision: Decision | None
    ended: bool

    def choose(self, decision: Decision) -> None:
        """Take a decision."""
        ...

    def send(self) -> None:
        """Send the request to the chosen backend."""
        ...

    def refuse(self, error: ProxyError) -> None:
        """Answer with an error."""
        ...

    def locate(self, question: Locate, then: Callable[[Located], None]) -> None:
        """Ask the backends, then go on with what they said."""
        ...

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run work for it."""
        ...


def read_post(post: Post, session_id: str | None) -> None:
    """A POST has been read: go on with the session that it names, if it is the first of its transport."""
    engine = post.decision.engine if post.decision else None
    if engine is not None and not engine.decided:
        if session_id:
            _connect(post, session_id)
            return
        # CONNECT is the first thing a Socket.IO client says: this transport had it elsewhere.
        post.site.router.engines.decide(engine, None)
    post.send()


def _connect(post: Post, session_id: str, located: Located = Asked.NOT_YET) -> None:
    router, engine = post.site.router, _engine(post)
    try:
        decision = router.connect(session_id, engine.backend, monotonic(), located)
    except NoBackend as error:
        post.refuse(error)
        return
    if isinstance(decision, Locate):
        post.locate(decision, lambda found: _connect(post, session_id, found))
        return
    if decision.backend is not engine.backend and router.shared and not post.site.shared.up:
        # Its other requests come to other proxies, which would go on where the handshake went: better a
        # session that begins anew, or is taken over, than a client that cannot connect.
        decision = router.accept(session_id, engine.backend, monotonic()) or decision
    post.site.stats.decided(decision.evidence, decision.outcome)
    if decision.backend is engine.backend:
        router.engines.decide(engine, decision.session)
        post.choose(_with_engine(decision, engine))
        post.send()
    else:
        post.spawn(_move(post, decision, session_id))


async def _move(post: Post, decision: Decision, session_id: str) -> None:
    site, engine = post.site, _engine(post)
    try:
        sid = await _open(post, decision)
    except ProxyError as error:
        site.report(decision.backend, error)
        if post.ended:
            return
        if decision.backend.holds_pins or error.retry is not Retry.IF_UNSENT:
            # It may only be slow, or it broke by this: the client closes its transport and tries again.
            post.refuse(error)
        else:
            _connect(post, session_id)
        return
    if post.ended:
        return
    site.stats.rehomes += 1
    site.router.engines.rehome(engine, decision.backend, sid)
    site.router.engines.decide(engine, decision.session)
    post.choose(_with_engine(decision, engine))
    post.send()


async def _open(post: Post, decision: Decision) -> bytes:
    """Open an Engine.IO session by polling at the decision's backend: its sid."""
    site = post.site
    response, body = await fetch(
        site.pool(decision.backend),
        b"GET",
        upstream_heads.handshake_head(post.request),
        site.timeouts.response,
    )
    sid = open_sid(body) if response.status == 200 else None
    if sid is None:
        raise BadResponse(f"the backend answered {response.status} to a handshake")
    return sid


def _engine(post: Post) -> EngineSession:
    assert post.decision is not None
    assert post.decision.engine is not None
    return post.decision.engine


def _with_engine(decision: Decision, engine: EngineSession) -> Decision:
    return Decision(decision.backend, decision.evidence, decision.outcome, decision.session, engine)
