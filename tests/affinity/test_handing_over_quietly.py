"""Playbooks of a try whose instance holds back what is for the client: see `test_handing_over`."""

import pytest

from proxy.affinity.actions import Connected, ToBackend
from proxy.affinity.handing_over import (
    Failure,
    GiveUp,
    GoneOn,
    HandingOver,
    HandOverAction,
    Part,
    said_again,
)

CONNECT = b'40{"sessionId":"session-S"}'
HELLO = b'40/chainlit-proxy,{"quiet":true}'
RESUME = b'42/chainlit-proxy,0["resume", {"streaming": "streamed"}]'


def asked(*, planned: bool = False) -> HandingOver:
    """One that has asked whether the instance shares sessions."""
    machine = HandingOver(CONNECT, [], "streamed", planned=planned, quiet=True)
    assert hear(machine, b'0{"sid":"b-sid-1"}') == [ToBackend(HELLO)]
    return machine


def hear(machine: HandingOver, packet: bytes) -> list[HandOverAction]:
    """The instance says a packet of a poll."""
    return machine.hear(packet, packet, binary=packet.startswith(b"b"))


def test_it_is_asked_all_at_once() -> None:
    """The answer to the CONNECT is for the client's polls: that to `resume` tells of it."""
    machine = asked()
    assert hear(machine, b'40/chainlit-proxy,{"sid":"1"}') == [ToBackend(CONNECT), ToBackend(RESUME)]
    assert hear(machine, b"6") == []
    assert not machine.is_connected or machine.state.value == "resuming"
    assert hear(machine, b"43/chainlit-proxy,0[true]") == [
        Connected(),
        ToBackend(b"41/chainlit-proxy,"),
        GoneOn(),
    ]


def test_the_instance_before_is_told_first() -> None:
    """As in any planned move."""
    machine = asked(planned=True)
    assert hear(machine, b'40/chainlit-proxy,{"sid":"1"}') == [Part()]
    assert machine.parted() == [ToBackend(CONNECT), ToBackend(RESUME)]


def test_what_it_does_not_hold_it_refuses() -> None:
    """Its refusal of the CONNECT is held back, too."""
    machine = asked()
    hear(machine, b'40/chainlit-proxy,{"sid":"1"}')
    assert hear(machine, b"43/chainlit-proxy,0[false]") == [GiveUp(Failure.REFUSED)]


@pytest.mark.parametrize("packet", [b'40{"sid":"2"}', b'42["task_end",{}]', b"bAAEC", b"2"])
def test_one_that_holds_nothing_back(packet: bytes) -> None:
    """What it says would be lost, or come twice: the client has to connect anew."""
    machine = asked()
    hear(machine, b'40/chainlit-proxy,{"sid":"1"}')
    assert hear(machine, packet) == [GiveUp(Failure.NO_HOOKS)]


@pytest.mark.parametrize(
    ("said", "again"),
    [
        (b'42["client_message",{"id":1}]', b'42["chainlit_proxy_said_again","client_message",{"id":1}]'),
        (b'427["edit_message",{}]', b'427["chainlit_proxy_said_again","edit_message",{}]'),
    ],
)
def test_what_is_said_again(said: bytes, again: bytes) -> None:
    """An event of its own, acknowledged to the client as it has asked for it."""
    assert said_again(said) == again
