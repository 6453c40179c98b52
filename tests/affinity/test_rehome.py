"""What a client says to namespaces of an app's own before its session is known, and how it is said again."""

from base64 import b64encode

import pytest

from proxy.affinity.rehome import OPEN, PROBED, Names, Said, payloads, read_post
from proxy.errors import OddId
from proxy.wire.engineio import MOST_PACKETS, SEPARATOR

ADMIN = b'40/admin,{"token":"x"}'
DO = b'42/admin,7["do"]'


def said_of(*packets: bytes) -> Said:
    """A client's record that said these."""
    said = Said(64, 1000, opened=True)
    for packet in packets:
        said.counts(len(packet))
        said.say(packet)
    return said


def test_what_goes_to_other_namespaces_is_kept_in_order() -> None:
    """Binary messages with the packet that they belong to; nothing of `/`, and no heartbeat."""
    said = said_of(ADMIN)
    for packet, binary in ((b"2", False), (b"451-/admin,[]", False), (b"bytes", True), (b'42["x"]', False)):
        said.say(packet, binary=binary)
    said.say(b"of /", binary=True)
    said.say(DO)
    assert said.again() == [(ADMIN, False), (b"451-/admin,[]", False), (b"bytes", True), (DO, False)]


def test_answers_that_the_client_has_are_swallowed_once() -> None:
    """The answer to CONNECT by its namespace, an acknowledgement by its number too; all else passes."""
    said = said_of(ADMIN, DO)
    answers = [b"40/admin,{}", b"43/admin,7[]"]
    assert all(said.hear(packet) for packet in answers)
    said.again()
    assert [said.hear(packet) for packet in answers] == [False, False]
    others = [b"40/admin,{}", b"43/admin,8[]", b"43/other,7[]", b"42/admin,[]", b"40{}", b"43[]", b"2", b"6"]
    assert all(said.hear(packet) for packet in others)


def test_attachments_of_a_swallowed_acknowledgement_go_with_it() -> None:
    """As many as it has; those of another packet pass."""
    said = said_of(ADMIN, DO)
    said.hear(b"462-/admin,7[]")
    said.again()
    assert not said.hear(b"462-/admin,7[]")
    assert [said.hear(b"x", binary=True) for _ in range(3)] == [False, False, True]
    said.again()
    assert not said.hear(b"462-/admin,7[]")
    assert said.hear(b"42/admin,[]")
    assert said.hear(b"x", binary=True)


@pytest.mark.parametrize("end", [b"44/admin,{}", b"41/admin,"])
def test_a_namespace_that_ended_is_not_said_again(end: bytes) -> None:
    """The client knows that it is not connected there."""
    said = said_of(ADMIN, DO)
    said.hear(b"40/admin,{}")
    assert said.connected == {b"/admin"}
    assert said.hear(end)
    assert (said.connected, said.again(), said.owes) == (set(), [], False)


def test_what_is_owed() -> None:
    """An answer to CONNECT has to come before all is as usual; an acknowledgement may never come."""
    said = said_of(ADMIN, DO)
    assert (said.names_others, said.owes) == (True, False)
    said.hear(b"43/admin,7[]")
    said.again()
    assert (said.names_others, said.owes) == (True, False)
    said.hear(b"40/admin,{}")
    said.again()
    assert said.owes
    said.hear(b"44/admin,{}")
    assert not said.owes


@pytest.mark.parametrize(("opened", "swallowed"), [(True, True), (False, False)])
def test_the_open_packet_is_swallowed_if_the_client_has_one(opened: bool, swallowed: bool) -> None:
    """Of a new Engine.IO session; a probe's answer in the same way."""
    said = Said(64, 1000, opened=opened)
    said.again()
    said.repeats(OPEN)
    assert said.hear(b'0{"sid":"x"}') is not swallowed
    said = Said(64, 1000, opened=opened)
    if opened:
        said.hear(b"3probe")
    said.again()
    said.repeats(PROBED)
    assert said.hear(b"3probe") is not swallowed


def test_it_is_bounded() -> None:
    """In packets and in bytes, and so is what is remembered of answers."""
    assert not said_of(*[b"4"] * 64).is_over
    assert said_of(*[b"4"] * 65).is_over
    assert said_of(b"4" * 1001).is_over
    said = said_of(ADMIN)
    for number in range(1000):
        said.hear(b"43/admin,%d[]" % number)
    assert len(said._heard) == 64


SESSION = b'40{"sessionId":"session-S"}'


@pytest.mark.parametrize(
    ("packets", "known", "names"),
    [
        ([SESSION], False, "session-S"),
        ([ADMIN, SESSION], False, "session-S"),
        ([b"3", b"40"], False, Names.NO_SESSION),
        ([b'40{"token":"x"}'], True, Names.NO_SESSION),
        ([ADMIN], False, Names.OTHERS),
        ([b'40/admin,{"sessionId":"session-S"}'], False, Names.OTHERS),
        ([DO], True, Names.OTHERS),
        ([DO], False, Names.ELSEWHERE),
        ([b'42["hi"]'], True, Names.ELSEWHERE),
        ([b"3"], True, Names.NOTHING),
        ([b"2", b"3"], False, Names.NOTHING),
        ([b""], False, Names.NOTHING),
        ([b"\xff\xfe"], False, Names.ELSEWHERE),
        ([b"d=40%7B%22sessionId%22%3A%22session-S%22%7D"], False, "session-S"),
    ],
)
def test_what_a_post_tells(packets: list[bytes], known: bool, names: Names | str) -> None:
    """The first CONNECT to `/` decides, wherever it stands; other namespaces keep it open."""
    told, _ = read_post(SEPARATOR.join(packets), said_of(ADMIN) if known else None)
    assert told == names


def test_an_odd_session_is_refused() -> None:
    """As everywhere."""
    with pytest.raises(OddId):
        read_post(b'40{"sessionId":"../x"}', None)


def test_payloads_hold_what_a_backend_takes() -> None:
    """No more packets each than python-engineio decodes, binary ones in base64."""
    said = [(b"42/admin,%d" % number, False) for number in range(20)]
    bodies = payloads([*said, (b"bytes", True)])
    packets = [body.split(SEPARATOR) for body in bodies]
    assert [len(each) for each in packets] == [MOST_PACKETS, 5]
    assert packets[1][-1] == b"b" + b64encode(b"bytes")
    assert payloads([]) == []


def test_what_is_shown() -> None:
    """How much was said, and nothing of it."""
    assert repr(said_of(ADMIN, DO)) == "<Said 2 packets, kept=2 owed=0>"
