"""What an answer to a poll tells of its session: whether its app is answering."""

from proxy.affinity.directory import Session
from proxy.wire.turns import plain, turn_after


def noted_turn(session: Session | None, data: bytes) -> bool:
    """Note what a piece of an answer tells of a turn, if it does; return whether that is news."""
    told = turn_after(plain(data))
    if session is None or told is None or session.in_turn is told:
        return False
    session.in_turn = told
    return True
