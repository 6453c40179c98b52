"""The short way of nearly all requests: polls of a transport that has settled at its backend."""

from proxy.affinity.decision import Decision, EngineSession
from proxy.dataplane import inspection, rehome
from proxy.dataplane.request import Request
from proxy.dataplane.request_body import MOST_HELD
from proxy.dataplane.site import Site
from proxy.wire.engineio import PONG, ends_transport


def decision_of(request: Request, site: Site, ahead: int) -> Decision | None:
    """Where a poll goes whose sid leads straight to its backend, if all of it is here.

    `ahead` bytes have come behind its head. Nothing of what an exchange may have to do besides is in question
    then.
    """
    engine = site.router.engines.settled.get(request.sid) if request.sid else None
    if engine is None:
        return None
    head, decision = request.head, engine.decision
    method, fields = head.method, head.fields
    length = fields.length or 0
    whole = not length if method == b"GET" else method == b"POST" and length <= min(ahead, MOST_HELD)
    if (
        not (whole and fields.usual and head.minor)
        or 0 < site.limits.body < length
        or not isinstance(decision, Decision)
        or not decision.backend.holds_pins
    ):
        return None
    return decision


def hear(content: bytes, request: Request, engine: EngineSession, site: Site) -> bool:
    """Note what a client says by a POST; whether it is a message of the user. Raises OddId and OverLimit."""
    if content == PONG:
        return False
    if inspection.brings_connect(content, site.limits.packets):
        engine.kept = None  # as in `rehome.read_post`
    engine.says(request.started)
    if ends_transport(content):
        site.router.engines.closed(engine, request.started)
    return rehome.note_said(site, request, engine, content)
