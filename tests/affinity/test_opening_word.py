"""The opening of a websocket whose polls may have connected through another proxy, which tells of it."""

import pytest

from proxy.affinity.actions import Settle, ToBackend, ToClient
from proxy.affinity.opening import Opening, State
from proxy.affinity.rehome import Said
from proxy.wire.websocket import TEXT, client_frame, server_frame

EVENT = server_frame(TEXT, b'42["task_end",{}]')
UPGRADE = client_frame(TEXT, b"5")


def opening(*, connected: bool = False) -> Opening:
    """One that takes over from polls."""
    return Opening(Said(64, 1 << 18, opened=True), upgrade=True, connected=connected, told=False)


@pytest.mark.parametrize("connected", [True, False])
def test_it_is_watched_until_the_word_has_come(connected: bool) -> None:
    """What is said passes meanwhile; an event tells that there is a session, not which."""
    machine = opening(connected=connected)
    assert machine.client(UPGRADE) == [ToBackend(UPGRADE)]
    assert machine.backend(EVENT) == [ToClient(EVENT)]
    assert machine.state is State.CONNECTED
    assert machine.word_has_come() == [Settle(b"", b"", False)]
    assert machine.word_has_come() == []


def test_the_word_comes_first() -> None:
    """Then it is settled as any other."""
    machine = opening()
    assert machine.word_has_come() == []
    assert machine.settled(resumes=False) == [Settle(b"", b"", False)]


def test_the_upgrade_is_waited_for_all_the_same() -> None:
    """Where polls have connected it is not over before the client has said so."""
    machine = opening(connected=True)
    assert machine.word_has_come() == []
    assert machine.client(UPGRADE) == [ToBackend(UPGRADE), Settle(b"", b"", False)]
