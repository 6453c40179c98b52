"""Playbooks of one try to have an instance go on with a session; as `playbook`, whose marks they use.

`new` is the instance that is tried: a message of it, or a packet that is said to it. `client` is what the
client gets.
"""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.actions import Connected, ToBackend, ToClient
from proxy.affinity.handing_over import Acknowledge, GiveUp, GoneOn, HandingOver, HandOverAction, Part, State
from proxy.wire.websocket import BINARY, TEXT, server_frame
from tests.affinity.playbook import steps, texts

CONNECT = '40{"sessionId":"session-S"}'


def run(book: str, *again: str, streamed: str = "", planned: bool = False) -> HandingOver:
    """Play a book; raises AssertionError at the first event that has other consequences."""
    machine = HandingOver(CONNECT.encode(), [packet.encode() for packet in again], streamed, planned=planned)
    done = []
    for given_, expected in steps(book):
        seen = list(_words(_play(machine, given_)))
        done.append(f">> {given_}")
        assert seen == expected, "\n".join([*done, f"expected {expected}", f"but saw  {seen}"])
    return machine


def _play(machine: HandingOver, event: str) -> list[HandOverAction]:
    if event == "parted":
        return machine.parted()
    packet = event.removeprefix("new ")
    binary = packet.startswith("(binary) ")
    said = packet.removeprefix("(binary) ").encode()
    return machine.hear(said, server_frame(BINARY if binary else TEXT, said), binary=binary)


def _words(actions: list[HandOverAction]) -> Iterator[str]:
    for action in actions:
        match action:
            case ToClient(data):
                yield from (f"client {text}" for text in texts(data))
            case Acknowledge(packet):
                yield f"acknowledge {packet.decode()}"
            case ToBackend(packet):
                yield f"new {packet.decode()}"
            case Part():
                yield "part"
            case Connected():
                yield "connected"
            case GoneOn():
                yield "gone on"
            case GiveUp(why):
                yield f"give up: {why}"


HELLO = """
    >> new 0{"sid":"b-sid-1"}
    << new 40/chainlit-proxy,
    """
RESUME = """
    << new 42/chainlit-proxy,0["resume", {"streaming": null}]
    """
ASKED = f"""{HELLO}
    >> new 40/chainlit-proxy,{{"sid":"1"}}
    << new {CONNECT}
    {RESUME}
    """
ANSWERED = """
    >> new 40{"sid":"2"}
    << connected
    << client 40{"sid":"2"}
    """
GREETED = """
    >> new 42["task_end",{}]
    << client 42["task_end",{}]
    """
CONNECTED = ASKED + ANSWERED
RESUMED = CONNECTED + GREETED
ONE, TWO = '42["client_message",{"id":1}]', '427["edit_message",{"id":2}]'
SAID = """
    << new 42/chainlit-proxy,1["client_message",{"id":1}]
    << new 42/chainlit-proxy,2["edit_message",{"id":2}]
    """
RESUMED_WITH_TWO = ASKED + SAID + ANSWERED + GREETED


def test_a_session_that_goes_on() -> None:
    """It is asked, connected and greeted; then the proxy says goodbye and is silent."""
    machine = run(
        f"""{RESUMED}
        >> new 43/chainlit-proxy,0[true]
        << new 41/chainlit-proxy,
        << gone on
        """
    )
    assert machine.state is State.DONE
    assert machine.is_connected


def test_an_answer_that_was_cut_is_named() -> None:
    """The page shows a cursor behind it, which has to go."""
    run(
        ASKED.replace("null", '"message-1"'),
        streamed="message-1",
    )


def test_messages_are_said_again_in_order() -> None:
    """At once with the CONNECT, with the namespace put in; whoever asked for an acknowledgement gets it."""
    run(
        f"""{RESUMED_WITH_TWO}
        >> new 43/chainlit-proxy,0[true]
        >> new 43/chainlit-proxy,2[]
        << acknowledge 437[]
        >> new 42["task_start",{{}}]
        << client 42["task_start",{{}}]
        >> new 43/chainlit-proxy,1[]
        << new 41/chainlit-proxy,
        << gone on
        """,
        ONE,
        TWO,
    )


def test_messages_that_are_being_answered() -> None:
    """`true` says that the answer is still to come; when it has come the message is answered."""
    machine = run(
        f"""{RESUMED_WITH_TWO}
        >> new 43/chainlit-proxy,0[true]
        >> new 43/chainlit-proxy,1[true]
        >> new 43/chainlit-proxy,2[true]
        << acknowledge 437[]
        << new 41/chainlit-proxy,
        << gone on
        """,
        ONE,
        TWO,
    )
    assert machine.being_answered == [ONE.encode(), TWO.encode()]
    machine = run(
        f"""{RESUMED_WITH_TWO}
        >> new 43/chainlit-proxy,0[true]
        >> new 43/chainlit-proxy,1[true]
        >> new 42["task_end",{{}}]
        << client 42["task_end",{{}}]
        >> new 43/chainlit-proxy,2[true]
        << acknowledge 437[]
        << new 41/chainlit-proxy,
        << gone on
        """,
        ONE,
        TWO,
    )
    assert machine.being_answered == [TWO.encode()]


def test_acknowledgements_of_nothing() -> None:
    """Of a number that was not said, or a second time, or too early: nothing follows from them."""
    run(
        f"""{HELLO}
        >> new 43/chainlit-proxy,0[true]
        >> new 40/chainlit-proxy,{{"sid":"1"}}
        << new {CONNECT}
        {RESUME}
        {SAID}
        >> new 43/chainlit-proxy,0[true]
        {ANSWERED}
        >> new 43/chainlit-proxy,1[]
        >> new 43/chainlit-proxy,[]
        >> new 43/chainlit-proxy,0[true]
        >> new 43/chainlit-proxy,0[true]
        >> new 43/chainlit-proxy,3[]
        >> new 43/chainlit-proxy,1[]
        >> new 43/chainlit-proxy,1[]
        >> new 43/chainlit-proxy,2[]
        << acknowledge 437[]
        << new 41/chainlit-proxy,
        << gone on
        """,
        ONE,
        TWO,
    )


def test_a_planned_move_tells_the_instance_before_last() -> None:
    """Only when the new one has said that it shares sessions; CONNECT only when the other has put it down."""
    run(
        f"""{HELLO}
        >> parted
        >> new 40/chainlit-proxy,{{"sid":"1"}}
        << part
        >> new 40/chainlit-proxy,{{"sid":"1"}}
        >> new 2
        << client 2
        >> parted
        << new {CONNECT}
        {RESUME}
        >> parted
        """,
        planned=True,
    )


@pytest.mark.parametrize(
    "answer", ['44/chainlit-proxy,{"message":"x"}', "44/chainlit-proxy,", "41/chainlit-proxy,"]
)
@pytest.mark.parametrize("planned", [True, False])
def test_an_instance_that_shares_nothing(planned: bool, answer: str) -> None:
    """It never sees the CONNECT, and the instance before hears nothing either."""
    run(f"{HELLO}\n>> new {answer}\n<< give up: no_hooks", planned=planned)


def test_an_instance_that_refuses() -> None:
    """Its 44 is not for the client, nor is its `false`."""
    run(f'{ASKED}\n>> new 44{{"message":"x"}}\n<< give up: refused')
    run(f"{RESUMED}\n>> new 43/chainlit-proxy,0[false]\n<< give up: refused")
    run(f"{RESUMED}\n>> new 43/chainlit-proxy,0[]\n<< give up: refused")


def test_a_message_that_cannot_be_taken() -> None:
    """An instance that has lost the session meanwhile, or fails, says so: the user has to hear of it."""
    run(
        f"""{RESUMED_WITH_TWO}
        >> new 43/chainlit-proxy,0[true]
        >> new 43/chainlit-proxy,1[]
        >> new 43/chainlit-proxy,2[false]
        << give up: refused
        """,
        ONE,
        TWO,
    )


@pytest.mark.parametrize("word", ["1", "41"])
@pytest.mark.parametrize("before", [HELLO, ASKED, CONNECTED, RESUMED])
def test_an_instance_that_says_goodbye(before: str, word: str) -> None:
    """At any step: that is not for the client."""
    run(f"{before}\n>> new {word}\n<< give up: broken")


def test_what_an_instance_says_too_early_is_not_for_the_client() -> None:
    """Nothing of `/` before its answer to CONNECT, binary messages neither; heartbeats are."""
    run(
        f"""
        >> new 2
        {ASKED}
        >> new 42["x"]
        >> new 40/admin,{{}}
        >> new 0{{"sid":"again"}}
        >> new (binary) x
        >> new 6
        >> new 2
        << client 2
        {ANSWERED}
        >> new 451-["x",{{"_placeholder":true,"num":0}}]
        << client 451-["x",{{"_placeholder":true,"num":0}}]
        >> new (binary) x
        << client (binary) x
        >> new 6
        >> new 0{{"sid":"again"}}
        """
    )


def test_nothing_of_what_is_kept_is_shown() -> None:
    """A CONNECT may have keys of the user."""
    assert repr(run(ASKED + SAID, ONE, TWO)) == "<HandingOver connecting again=2>"


PACKETS = st.sampled_from(
    [
        b'0{"sid":"b"}',
        b"40/chainlit-proxy,{}",
        b"44/chainlit-proxy,{}",
        b"41/chainlit-proxy,",
        b"43/chainlit-proxy,0[true]",
        b"43/chainlit-proxy,0[false]",
        b"43/chainlit-proxy,1[]",
        b"43/chainlit-proxy,2[]",
        b"42/chainlit-proxy,[]",
        b"40{}",
        b"44{}",
        b"41",
        b"1",
        b"2",
        b"6",
        b'42["x"]',
        b"40/admin,{}",
        b"",
        b"\xff",
    ]
)
USUAL = [
    b'0{"sid":"b"}',
    b"40/chainlit-proxy,{}",
    b"40{}",
    b"43/chainlit-proxy,0[true]",
    b"43/chainlit-proxy,1[]",
]


@given(
    st.integers(0, len(USUAL)),
    st.lists(st.one_of(PACKETS, st.none(), st.binary(max_size=8)), max_size=12),
    st.booleans(),
    st.integers(0, 2),
)
def test_any_story(usual: int, story: list[bytes | None], planned: bool, again: int) -> None:
    """Whatever it says: no exception, one end, and nothing of `/` for the client before it has connected."""
    machine = HandingOver(CONNECT.encode(), [ONE.encode(), TWO.encode()][:again], "", planned=planned)
    seen: list[HandOverAction] = []
    for packet in [*USUAL[:usual], *story]:
        if any(isinstance(action, (GoneOn, GiveUp)) for action in seen):
            break
        if packet is None or (planned and machine.state is State.PARTING):
            seen += machine.parted()
        if packet is not None:
            seen += machine.hear(packet, packet)
    ends = [at for at, action in enumerate(seen) if isinstance(action, (GoneOn, GiveUp))]
    assert ends in ([], [len(seen) - 1])
    assert (machine.state is State.DONE) is bool(ends)
    assert sum(isinstance(action, Connected) for action in seen) <= 1
    connects = [at for at, action in enumerate(seen) if action == ToBackend(CONNECT.encode())]
    assert len(connects) <= 1
    parts = [at for at, action in enumerate(seen) if isinstance(action, Part)]
    assert len(parts) <= planned
    if planned and connects:
        assert parts[0] < connects[0]
    connected = [at for at, action in enumerate(seen) if isinstance(action, Connected)]
    told = [at for at, action in enumerate(seen) if isinstance(action, ToClient) and action.data[:1] == b"4"]
    own = [at for at in told if not seen[at].data.startswith(b"40/admin")]  # type: ignore[union-attr]
    assert not own or (connected and connected[0] < own[0])
