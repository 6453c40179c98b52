"""What an exchange does when its backend failed: try again where that is safe, else tell the client.

A poll takes its packets out of the backend's queue, so said again it may lose them: where its connection
broke its client is told that the sid is unknown, and connects again at once.
"""

import asyncio
from typing import TYPE_CHECKING

from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence, Kind
from proxy.affinity.retry import may_retry
from proxy.dataplane import polls
from proxy.errors import (
    ConnectFailed,
    Limit,
    OverLimit,
    ProxyError,
    Retry,
    Side,
    UpstreamClosed,
    UpstreamTimeout,
)
from proxy.wire import reply

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange

_PAUSE = 0.2  # seconds until a backend is tried again that is waited for: it may fail at once each time


def recover(exchange: "Exchange", error: ProxyError) -> None:
    """Try again if no byte of the response is out and that is safe, else tell the client."""
    if exchange.ended:
        return
    if exchange.is_poll and not exchange.status and isinstance(error, UpstreamClosed):
        exchange.error = error.reason
        polls.tell_unknown(exchange)
        return
    pinned, reused = _is_pinned(exchange), error.retry is Retry.IF_REUSED
    # A backend that was taken for dead or out of service meanwhile is not asked again.
    again = (exchange.backend.holds_pins or not reused) and may_retry(
        error,
        exchange.head.method,
        upgrade=exchange.wants_upgrade,
        resayable=not exchange.body.streamed and not exchange.status,
        pinned=pinned,
        tries_left=len(exchange.plane.router.fleet) - exchange.failures,
    )
    if exchange.is_last_try or not again:
        exchange.refuse(error)
        return
    exchange.failures += 1
    exchange.plane.stats.retries[exchange.backend.name] += 1
    if reused:
        exchange.is_last_try = True
        exchange.send()
    elif not isinstance(error, ConnectFailed):
        exchange.go()
    elif pinned:
        exchange.spawn(_go_after_a_pause(exchange))
    else:
        exchange.avoid |= {exchange.backend.name}
        exchange.go()


async def _go_after_a_pause(exchange: "Exchange") -> None:
    """Try again where no connection could be opened, unless the exchange went elsewhere meanwhile."""
    decision = exchange.decision
    await asyncio.sleep(_PAUSE)
    if not exchange.ended and exchange.decision is decision:
        exchange.go()


def late(exchange: "Exchange") -> None:
    """The client's body or the backend's response did not come in time."""
    if not exchange.body.done:
        exchange.refuse(OverLimit(Limit.SLOW_BODY, "request body too slow", status=408))
        return
    error = UpstreamTimeout("no response in time")
    if exchange.decision is not None:
        exchange.plane.failed(exchange.backend, error)
    exchange.refuse(error)


def _is_pinned(exchange: "Exchange") -> bool:
    """Whether it belongs to its backend: then it waits for it rather than go elsewhere."""
    decision = exchange.decision
    return decision is not None and (
        decision.evidence is Evidence.SID
        or (decision.evidence is Evidence.SESSION and decision.outcome is not Outcome.PLACED)
    )


def refuse(exchange: "Exchange", error: ProxyError) -> None:
    """Answer with an error."""
    head = exchange.head
    shown = b"text/html" in (head.fields.get(b"accept") or b"") and head.method == b"GET"
    broken = error.side is Side.DOWNSTREAM and not error.retry_after
    close = broken or not exchange.body.done or not head.keeps_alive
    response = reply.error(
        error.status,
        error.told or error.reason,
        request_id=exchange.request_id,
        wants_page=shown and exchange.kind is not Kind.SOCKETIO,
        close=close,
        head_only=head.method == b"HEAD",
        retry_after=error.retry_after,
    )
    exchange.answer(error.status, response, keep=not close)
