"""The short way of nearly all requests: polls of a transport that has settled at its backend."""

from proxy.affinity.decision import Decision
from proxy.dataplane.request import Request
from proxy.dataplane.request_body import MOST_HELD
from proxy.dataplane.site import Site


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
