"""What an answer to a poll tells of its session: whether its app is answering."""

from proxy.affinity.directory import Session
from proxy.wire.turns import plain, turns_in


def noted_turn(session: Session | None, data: bytes) -> bool:
    """Note what a piece of an answer tells of turns; return whether it tells anything."""
    events = turns_in(plain(data)) if session is not None else []
    for begins in events:
        assert session is not None
        session.hear(begins=begins)
    return bool(events)
