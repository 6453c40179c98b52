"""What an instance answers to the CONNECT packets that a polling client has said in POSTs.

A POST is answered with 200 whether its CONNECT is taken or refused: the verdict comes by a poll, or by the
websocket that takes over from polls, as a `40` or a `44`. Neither names the session that it is about. So it
is about the one that was named; whoever names another before that has none, for nobody knows which was taken.
Where its requests come to several proxies, the one that has read the CONNECT is told of the answer by the one
that has heard it (`dataplane.far_polls`).
"""

from proxy.affinity.claims import Claim
from proxy.affinity.decision import EngineSession
from proxy.affinity.router import Router
from proxy.affinity.session import Session


def names(router: Router, engine: EngineSession, claim: Claim) -> None:
    """A POST is about to bring a CONNECT; one that was not answered yet counts no more."""
    if not is_awaited(router, engine):
        router.refused(claim)
        return
    if engine.claim is not None:
        engine.connects_more = True
        router.refused(engine.claim)
    engine.claim = claim


def is_awaited(router: Router, engine: EngineSession) -> bool:
    """Whether anybody would hear of an answer: it has none yet, and goes on."""
    return not engine.decided and router.engines.get(engine.sid) is engine


def unsaid(router: Router, engine: EngineSession, claim: Claim) -> None:
    """It was not taken, or nobody knows: it counts for nothing."""
    router.refused(claim)
    if engine.claim is claim:
        engine.claim = None


def answered(router: Router, engine: EngineSession, now: float, *, taken: bool) -> Session | None:
    """The instance has answered one; return the session that it has taken, if that is known."""
    claim, session = engine.claim, None
    if claim is None:
        return None
    if not taken:
        unsaid(router, engine, claim)
        return None
    if claim in router.claims and not engine.connects_more:
        session = router.taken(claim, now)
    router.engines.decide(engine, session)
    return session
