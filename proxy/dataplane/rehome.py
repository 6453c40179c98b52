"""The poll POST that carries a CONNECT packet: where its session lives, and moving its transport there.

The handshake went to a backend by a guess. If CONNECT names a session of another backend, a new Engine.IO
session is opened there with this client's own fields, its OPEN packet is swallowed, what the client said to
namespaces of the app's own is said again (`affinity.rehome`), the client's sid becomes an alias of the new
one, and whatever of this transport waits at the wrong backend (a poll, a websocket in the middle of its
upgrade) is asked again at the right one. Then the POST goes there too. The session is open when the instance
has taken the CONNECT, which it says by a poll or a websocket (`affinity.answers`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol

from proxy.affinity import answers, rehome
from proxy.affinity.claims import Claim
from proxy.affinity.decision import Decision, EngineSession
from proxy.affinity.rehome import Names
from proxy.affinity.router import Asked, Locate, Located, Router
from proxy.borders import Work
from proxy.dataplane.arrivals import Arrivals
from proxy.dataplane.fetch import fetch, tell
from proxy.dataplane.poll_hand_over import MOVES, transport_key
from proxy.dataplane.request import Request
from proxy.dataplane.site import Site
from proxy.dataplane.upstream_heads import PollHeads
from proxy.errors import BadResponse, NoBackend, ProxyError, Retry
from proxy.wire.engineio import FORM, PONG, SEPARATOR, open_sid, packets_of
from proxy.wire.guard import ASKING, asks

_MESSAGE, _EDIT = ASKING
_WORD = 0.25  # seconds in which another proxy tells of the CONNECT that it has seen, once for a transport


class Connect:
    """A CONNECT that a POST brings, until the backend has answered it; owned by the POST's exchange."""

    __slots__ = ("claim", "engine")

    def __init__(self, router: Router, engine: EngineSession, claim: Claim | None) -> None:
        """It names no session if there is no claim."""
        self.engine = engine
        self.claim = claim
        if claim is not None:
            answers.names(router, engine, claim)

    def answered(self, router: Router, status: int) -> None:
        """The backend has answered the POST: it has heard the CONNECT, or will not."""
        if not (200 <= status < 300 and answers.is_awaited(router, self.engine)):
            self.ended(router)
        elif self.claim is not None:
            self.claim.said = True
        else:
            router.engines.decide(self.engine, None)

    def ended(self, router: Router) -> None:
        """Nothing came of it."""
        if self.claim is not None:
            answers.unsaid(router, self.engine, self.claim)


@dataclass(frozen=True, slots=True)
class _Waiter:
    """As Waiting: what is said to Chainlit is held until another proxy has told where its session is."""

    arrivals: Arrivals
    engine: EngineSession

    def redirect(self) -> None:
        """As Waiting: that will be decided in a moment."""

    def decided(self) -> None:
        """As Waiting."""
        self.arrivals.release(transport_key(self.engine))


class Post(Protocol):
    """What a move needs of the POST that named its session."""

    site: Site
    request: Request
    decision: Decision | None
    connect: Connect | None
    ended: bool
    has_said: bool  # whether it has brought a message of the user

    def wait_to_say(self, engine: EngineSession, seconds: float) -> bool:
        """Its transport is on its way: read it anew when that is told; whether it may wait."""
        ...

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

    def spawn(self, work: Work) -> None:
        """Run work for it."""
        ...


def read_post(post: Post, content: bytes, *, is_connect: bool) -> None:
    """A POST has been read: go on with what it tells of its transport. Raises OddId.

    Who says one CONNECT more, with another session perhaps, is handed over no more.
    """
    engine = post.decision.engine if post.decision else None
    if engine is not None and content[:1] != PONG:
        engine.says(post.request.started)
    if engine is None or engine.decided:
        if engine is None and is_connect:
            post.site.doubt(post.request.sid or b"")
        elif engine is not None:
            if engine.hand_over is not None and post.wait_to_say(engine, MOVES):
                return
            post.has_said = note_said(post.site, post.request, engine, content)
            if is_connect:
                engine.kept = None
        post.send()
        return
    engines = post.site.router.engines
    names, packets = rehome.read_post(content, engine.said)
    if isinstance(names, str):
        if rehome.connects_more(packets):
            engine.connects_more = True
        post.site.hand_overs.keep_polls(engine, post.request, rehome.connect_of(packets))
        _connect(post, names)
        return
    if names is Names.NO_SESSION:
        post.connect = Connect(post.site.router, engine, None)
    elif names is Names.ELSEWHERE and engine.claim is None:
        if post.site.hand_overs.far.hopes_for(engine) and post.wait_to_say(engine, _WORD):
            engine.waiting.add(_Waiter(post.site.arrivals, engine))
            return
        engines.decide(engine, None)
    elif names is Names.OTHERS:
        engines.says(engine, packets)
    post.has_said = note_said(post.site, post.request, engine, content)
    post.send()


def note_said(site: Site, request: Request, engine: EngineSession, content: bytes) -> bool:
    """A client says this by a POST: if it is a message of the user, its instance may not take it.

    Returns whether it is one.
    """
    if not (_MESSAGE in content or _EDIT in content or content.startswith(FORM)):
        return False
    far = site.hand_overs.far
    if not (engine.kept or far.is_on):
        return False
    messages = [packet for packet in packets_of(content) if asks(packet)]
    for packet in messages:
        engine.hears().said(packet)
    if messages:
        far.said(engine, engine.kept or PollHeads.of(request), len(messages))
    return bool(messages)


def only_answers_ours(engine: EngineSession, content: bytes) -> bool:
    """Whether a client that has been said pings by us answers one by this POST, and says nothing else.

    Among other packets an instance gets a pong that it has not asked for, which it ignores.
    """
    pongs = content.split(SEPARATOR).count(PONG)
    engine.owed_pongs = max(0, engine.owed_pongs - pongs)
    return content == PONG


def _connect(post: Post, session_id: str, located: Located = Asked.NOT_YET) -> None:
    site, engine = post.site, _engine(post)
    router = site.router
    try:
        decision = router.connect(session_id, engine.backend, monotonic(), located)
    except NoBackend as error:
        post.refuse(error)
        return
    if isinstance(decision, Locate):
        post.locate(decision, lambda found: _connect(post, session_id, found))
        return
    if site.door is not None and site.door.refuses(decision.claim, post.request):
        post.refuse(site.door.full())
        return
    if decision.backend is not engine.backend and router.shared and not site.shared.up:
        # Its other requests come to other proxies, which would go on where the handshake went: better a
        # session that begins anew, or is taken over, than a client that cannot connect.
        accepted = router.accept(session_id, engine.backend)
        if accepted is not None and decision.claim is not None:
            router.refused(decision.claim)
        decision = accepted or decision
    site.stats.decided(decision.evidence, decision.outcome)
    post.connect = Connect(router, engine, decision.claim)
    if decision.backend is engine.backend:
        post.choose(_with_engine(decision, engine))
        post.send()
    else:
        post.spawn(partial(_move, post, decision, session_id))


async def _move(post: Post, decision: Decision, session_id: str) -> None:
    site, engine = post.site, _engine(post)
    try:
        sid = await _open(post, decision, engine)
    except ProxyError as error:
        site.report(decision.backend, error)
        if post.ended:
            return
        if post.connect is not None:
            post.connect.ended(site.router)
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
    site.hand_overs.far.moved(engine)
    post.choose(_with_engine(decision, engine))
    post.send()


async def _open(post: Post, decision: Decision, engine: EngineSession) -> bytes:
    """Open an Engine.IO session by polling at the decision's backend, and say what was said: its sid."""
    site, pool = post.site, post.site.pool(decision.backend)
    heads = PollHeads.of(post.request)
    response, body = await fetch(pool, b"GET", heads.handshake, site.timeouts.response)
    sid = open_sid(body) if response.status == 200 else None
    if sid is None:
        raise BadResponse(f"the backend answered {response.status} to a handshake")
    if engine.said is not None:
        for content in rehome.payloads(engine.said.again()):
            response = await tell(pool, b"POST", heads.post(sid, content), site.timeouts.response)
            if response.status != 200:
                raise BadResponse(f"the backend answered {response.status} to a repeated message")
    return sid


def _engine(post: Post) -> EngineSession:
    assert post.decision is not None
    assert post.decision.engine is not None
    return post.decision.engine


def _with_engine(decision: Decision, engine: EngineSession) -> Decision:
    return Decision(decision.backend, decision.evidence, decision.outcome, decision.session, engine)
