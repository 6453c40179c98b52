"""The opening of a websocket whose polls may have connected through another proxy, which tells of it."""

import pytest

from proxy.affinity.actions import Connected, Open, Settle, ToBackend, ToClient
from proxy.affinity.opening import Opening, State
from proxy.affinity.rehome import Said
from proxy.wire.websocket import TEXT, client_frame, server_frame

EVENT = server_frame(TEXT, b'42["task_end",{}]')
UPGRADE = client_frame(TEXT, b"5")
PROBE = client_frame(TEXT, b"2probe")


def opening(*, connected: bool = False) -> Opening:
    """One that takes over from polls."""
    return Opening(Said(64, 1 << 18, opened=True), upgrade=True, connected=connected, told=False)


@pytest.mark.parametrize("connected", [True, False])
def test_it_is_watched_until_the_word_has_come(connected: bool) -> None:
    """What is said passes meanwhile; an event tells that there is a session, not which."""
    machine = opening(connected=connected)
    assert machine.client(UPGRADE) == [ToBackend(UPGRADE)]
    assert machine.backend(EVENT) == [ToClient(EVENT), *([] if connected else [Connected()])]
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


SAID = client_frame(TEXT, b'42["connection_successful"]')
MORE = client_frame(TEXT, b'42["client_message",{}]')
PING = client_frame(TEXT, b"2")


def test_what_is_said_to_chainlit_waits_for_the_word() -> None:
    """Its client has connected through another proxy, at a backend that only the word tells."""
    machine = opening()
    assert machine.client(UPGRADE + PING) == [ToBackend(UPGRADE), ToBackend(PING)]
    assert machine.client(SAID) == []
    assert machine.client(PING + MORE) == []
    assert machine.word_has_come() == [ToBackend(SAID + PING + MORE)]
    assert machine.settled(resumes=False) == [Settle(b"", b"", False)]
    assert machine.client(MORE) == []  # it is a plain tunnel, which does not ask


def test_it_is_said_where_the_word_leads() -> None:
    """The other backend gets it behind the upgrade, the first one nothing of it."""
    machine = opening()
    machine.client(PROBE)
    machine.client(UPGRADE + SAID)
    assert machine.moved() == [Open(fresh=False)]
    assert machine.word_has_come() == []
    assert machine.settled(resumes=False) == []
    assert machine.client(MORE) == []
    assert machine.opened(b"") == [ToBackend(PROBE + UPGRADE), ToBackend(SAID), Settle(MORE, b"", False)]


def test_without_a_word_it_is_said_where_it_is() -> None:
    """When the time for one is up; a client that says too much meanwhile is watched no longer."""
    machine = opening()
    assert machine.client(UPGRADE + SAID) == [ToBackend(UPGRADE)]
    assert machine.word_has_come() == [ToBackend(SAID)]
    machine = opening()
    said = machine.client(UPGRADE + SAID * 64)
    assert said == [ToBackend(UPGRADE), ToBackend(SAID * 64), Settle(b"", b"", False)]
