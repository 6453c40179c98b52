"""What an instance answers to the CONNECT packets that a polling client has said in POSTs.

A POST is answered with 200 whether its CONNECT is taken or refused: the verdict comes by a poll, or by the
websocket that takes over from polls, as a `40` or a `44`. Neither names the session that it is about. So it
is about the one that was named; of several that were named at once nobody knows which was taken, and the
transport has none. Where its requests come to several proxies, the one that has read the CONNECT is told of
the answer by the one that has heard it (`dataplane.far_polls`).
"""

from proxy.affinity.claims import Claim
from proxy.affinity.decision import EngineSession
from proxy.affinity.router import Router
from proxy.affinity.session import Session


def names(engine: EngineSession, claim: Claim) -> None:
    """A POST is about to bring a CONNECT."""
    if any(other.session_id != claim.session_id for other in engine.claims):
        engine.connects_more = True
    engine.claims += (claim,)


def unsaid(router: Router, engine: EngineSession, claim: Claim) -> None:
    """It was not taken, or nobody knows: it counts for nothing."""
    router.refused(claim)
    engine.claims = tuple([other for other in engine.claims if other is not claim])


def answered(router: Router, engine: EngineSession, now: float, *, taken: bool) -> Session | None:
    """The instance has answered one of them; return the session that it has taken, if that is known."""
    claims = engine.claims
    if not claims:
        return None
    if not taken:
        unsaid(router, engine, claims[0])
        return None
    session = None
    claim = next((claim for claim in claims if claim in router.claims), None)
    if claim is not None and not engine.connects_more:
        session = router.taken(claim, now)
    router.engines.decide(engine, session)
    return session
