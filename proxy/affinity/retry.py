"""When a request that met an error upstream is tried again, on the same backend or another one.

A request may be what ends its backend, so one that was heard is never said to another backend. Only where a
kept connection broke without an answer may the backend have closed it before: then the request is said once
more, if it is idempotent (RFC 9110 section 9.2.2), to the same backend over a new connection. What was never
sent goes on to other backends; a request that belongs to its backend waits for one that does not accept
connections, rather than go elsewhere. A poll takes its packets out of the backend's queue, so said again it
may lose them: where its connection broke its client is told that the sid is unknown, and connects anew.
"""

from enum import Enum

from proxy.affinity.decision import Decision, Outcome
from proxy.affinity.evidence import Evidence
from proxy.errors import ConnectFailed, ProxyError, Retry, UpstreamClosed

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))


class Next(Enum):
    """What to do about an error."""

    REFUSE = "refuse"  # tell the client
    UNKNOWN = "unknown"  # tell it that its sid is unknown
    SAME = "same"  # once more at the same backend, over a new connection
    ANYWHERE = "anywhere"  # decide anew
    LATER = "later"  # decide anew after a pause: it waits for its backend
    ELSEWHERE = "elsewhere"  # decide anew, not for this backend


def is_pinned(decision: Decision) -> bool:
    """Whether a request belongs to its backend: then it waits for it rather than go elsewhere."""
    return decision.evidence is Evidence.SID or (
        decision.evidence is Evidence.SESSION and decision.outcome is not Outcome.PLACED
    )


def after(
    error: ProxyError,
    decision: Decision,
    method: bytes,
    *,
    poll: bool,
    upgrade: bool,
    resayable: bool,
    tries_left: int,
) -> Next:
    """What a request does that met an error before a byte of its response was out.

    `resayable` says that all of the body that was sent is still at hand.
    """
    if poll and isinstance(error, UpstreamClosed):
        return Next.UNKNOWN
    if error.retry is Retry.NEVER or not resayable:
        return Next.REFUSE
    if isinstance(error, ConnectFailed):
        if is_pinned(decision):
            return Next.LATER  # until the response is due
        return Next.ELSEWHERE if tries_left > 0 else Next.REFUSE
    if tries_left <= 0:
        return Next.REFUSE
    if error.retry is Retry.IF_UNSENT:
        return Next.ANYWHERE
    # A backend that was taken for dead or out of service meanwhile is not asked again. An upgrade that was
    # heard may have begun a session (on_chat_start runs twice: Chainlit PR 2891).
    again = decision.backend.holds_pins and method in _IDEMPOTENT and not upgrade
    return Next.SAME if again else Next.REFUSE
