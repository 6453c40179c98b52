"""What a poll brings that is not only the client's: news of its session's turn, and its end by our will."""

from typing import TYPE_CHECKING

from proxy.wire import reply
from proxy.wire.turns import plain, turn_after

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange


def note_turn(exchange: "Exchange", data: bytes) -> None:
    """A piece of the answer holds a turn's event, or may hold one."""
    session = exchange.decision.session if exchange.decision is not None else None
    told = turn_after(plain(data))
    if session is not None and told is not None and session.in_turn is not told:
        session.in_turn = told
        exchange.plane.shared.turn(session)


def tell_unknown(exchange: "Exchange") -> None:
    """Answer that the sid is unknown: Engine.IO's client closes its transport and opens another."""
    head_only = exchange.head.method == b"HEAD"
    exchange.answer(400, reply.unknown_session(request_id=exchange.request_id, head_only=head_only))


def send_away(exchange: "Exchange") -> None:
    """The session has to leave: a poll that waits for news is told that its sid is unknown."""
    if exchange.is_poll and not exchange.status and not exchange.ended:
        tell_unknown(exchange)
