"""Engine.IO and Socket.IO packets as affinity reads them, checked against python-engineio and -socketio."""

import json
from pathlib import Path
from time import process_time
from urllib.parse import parse_qs, quote

import engineio.packet
import engineio.payload
import pytest
import socketio.packet
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Limit, OddId, OverLimit
from proxy.sessions.store import is_session_id
from proxy.wire.engineio import (
    connect_in_payload,
    connect_session,
    is_quiet,
    may_connect,
    open_sid,
    packet_head,
    ping_overdue,
    query_sid,
    rewrite_open,
    session_id,
    session_in_json,
    with_sid,
    without_sid,
)

SID = st.text("abcXYZ019-_", min_size=1, max_size=40).map(str.encode)
PINNED = st.tuples(SID, SID).map(b".".join)

# a query, the sid in it, the query with the sid s2
QUERIES = [
    (b"EIO=4&transport=polling&t=x&sid=s1", b"s1", b"EIO=4&transport=polling&t=x&sid=s2"),
    (b"sid=s1&EIO=4", b"s1", b"sid=s2&EIO=4"),
    (b"sid=tok.s1", b"tok.s1", b"sid=s2"),
    (b"sid=s1&sid=other", b"s1", b"sid=s2&sid=other"),
    (b"sid=", None, b"sid="),
    (b"sid=&EIO=4&sid=s1", b"s1", b"sid=&EIO=4&sid=s2"),
    (b"EIO=4&transport=polling", None, b"EIO=4&transport=polling"),
    (b"EIO=4&nosid=s1&xsid=s1", None, b"EIO=4&nosid=s1&xsid=s1"),
    (b"", None, b""),
]


@pytest.mark.parametrize(("query", "sid", "changed"), QUERIES)
def test_the_sid_of_a_query(query: bytes, sid: bytes | None, changed: bytes) -> None:
    """The first sid counts, as python-engineio reads it, and only it is replaced."""
    assert query_sid(query) == sid
    assert with_sid(query, b"s2") == changed
    read = parse_qs(query.decode(), keep_blank_values=False).get("sid")
    assert (read[0].encode() if read else None) == sid


@given(SID, PINNED)
def test_a_sid_is_put_in_and_taken_out(sid: bytes, pinned: bytes) -> None:
    """Replacing a sid back and forth gives the query as it was."""
    query = b"EIO=4&sid=%b&t=1" % sid
    assert query_sid(with_sid(query, pinned)) == pinned
    assert with_sid(with_sid(query, pinned), sid) == query


def test_the_query_of_a_new_handshake() -> None:
    """A handshake made for a client keeps what it said but sid and transport."""
    assert without_sid(b"EIO=4&transport=websocket&t=x&sid=s", b"polling") == b"EIO=4&t=x&transport=polling"
    assert without_sid(b"EIO=4&transport=polling", b"websocket") == b"EIO=4&transport=websocket"


def opening(sid: str, after: list[engineio.packet.Packet] | None = None) -> bytes:
    """A handshake's answer as python-engineio writes it."""
    fields = {"sid": sid, "upgrades": ["websocket"], "pingTimeout": 20000, "pingInterval": 25000}
    packets = [engineio.packet.Packet(engineio.packet.OPEN, fields), *(after or ())]
    encoded: str = engineio.payload.Payload(packets=packets).encode()
    return encoded.encode()


PATIENCE = [  # as the backend says it, what the proxy asks for in seconds, what the client gets
    ("20000", 0.0, "20000"),
    ("20000", 20.0, "20000"),
    ("20000", 45.0, "45000"),
    ("20000", 180.5, "180500"),
    ("300000", 45.0, "300000"),
    ("20000", 1e9, "86400000"),
    (" 20000", 45.0, " 45000"),
    ("2e4", 45.0, "2e4"),
    ('"20000"', 45.0, '"20000"'),
]


@pytest.mark.parametrize(("said", "patience", "changed"), PATIENCE)
def test_the_clients_patience_is_rewritten(said: str, patience: float, changed: str) -> None:
    """A client waits at least as long as the proxy asks, and as the backend does; never longer than a day."""
    answer = '0{"sid":"s","pingTimeout":%s,"pingInterval":25000}\x1e4"pingTimeout":1'
    assert rewrite_open((answer % said).encode(), b"s", patience) == (answer % changed).encode()


RHYTHMS = [  # of pings, and when one is overdue in seconds
    ("", 27.0),
    ("20000", 27.0),
    ("2000", 25.5),
    ("2e4", 27.0),
]


@pytest.mark.parametrize(("timeout", "overdue"), RHYTHMS)
def test_when_a_ping_is_overdue(timeout: str, overdue: float) -> None:
    """Some seconds after the interval, as far as clients wait; by default if the packet does not tell."""
    told = f',"pingTimeout":{timeout},"pingInterval":25000' if timeout else ""
    assert ping_overdue(b'0{"sid":"s"%b}' % told.encode()) == overdue


@given(SID, PINNED, st.booleans())
def test_the_handshake_sid_is_rewritten(sid: bytes, pinned: bytes, more: bool) -> None:
    """Engine.IO protocol 4, handshake: only the sid of OPEN changes, packets behind it do not."""
    after = [engineio.packet.Packet(engineio.packet.MESSAGE, '0{"sid":"other"}')] if more else []
    answer = opening(sid.decode(), after)
    assert open_sid(answer) == sid
    changed = rewrite_open(answer, pinned)
    before = engineio.payload.Payload(encoded_payload=answer.decode()).packets
    packets = engineio.payload.Payload(encoded_payload=changed.decode()).packets
    assert packets[0].data == before[0].data | {"sid": pinned.decode()}
    assert [packet.encode() for packet in packets[1:]] == [packet.encode() for packet in before[1:]]


@pytest.mark.parametrize("spelling", [b'0{"sid":"a_-9"}', b'0{ "upgrades": [], "sid" :\t"a_-9" }'])
def test_spelling_of_open_does_not_matter(spelling: bytes) -> None:
    """JSON may have blanks and any order of keys."""
    assert open_sid(spelling) == b"a_-9"
    assert rewrite_open(spelling, b"t.a_-9") == spelling.replace(b"a_-9", b"t.a_-9")


NO_OPEN = [b"", b"0", b"1", b"0[]", b'4{"sid":"a"}', b'0{"sid":1}', b'0{"sid":""}', b'0{"sid":"a b"}',
           b'0{"sid":"a.b"}', b'0{"x":1}\x1e0{"sid":"a"}', b'{"code":0,"message":"Transport unknown"}',
           b'0{"sid":"%b"}' % (b"a" * 201)]  # fmt: skip


@pytest.mark.parametrize("payload", NO_OPEN)
def test_other_answers_have_no_sid(payload: bytes) -> None:
    """An answer that opens nothing, or with a sid that no Engine.IO server mints, is passed on as it is."""
    assert open_sid(payload) is None


# a packet, whether it is transport talk only
PACKETS = [(b"2", True), (b"2probe", True), (b"3probe", True), (b"5", True), (b"6", True), (b"40", False),
           (b"42[1]", False), (b"1", False), (b"0{}", False), (b"bAAA", False), (b"", False)]  # fmt: skip


@pytest.mark.parametrize(("packet", "quiet"), PACKETS)
def test_transport_talk_says_nothing(packet: bytes, quiet: bool) -> None:
    """Engine.IO protocol 4: ping, pong, upgrade and noop may all come before CONNECT."""
    assert is_quiet(packet) is quiet


# a packet, the session that its CONNECT names
CONNECTS = [
    (b'40{"sessionId":"session-1","threadId":""}', "session-1"),
    (b'40{"clientType":"webapp", "sessionId" : "session-1"}', "session-1"),
    (b'40{"session\\u0049d":"session\\u002d1"}', "session-1"),
    (b'40/chat,{"sessionId":"session-1"}', "session-1"),
    (b'40/chat?a=b,{"sessionId":"session-1"}', "session-1"),
    (b'40{"session_id":"session-1"}', "session-1"),
    (b'4"0{\\"sessionId\\":\\"session-1\\"}"', "session-1"),
    (b"40", ""),
    (b"40/chat,", ""),
    (b"40{}", ""),
    (b'40{"token":"x"}', ""),
    (b'40["sessionId"]', ""),
    (b'40{"sessionId":"', ""),
    (b'40/chat,{"sessionId":""}', ""),
    (b'42["message",{"sessionId":"session-1"}]', None),
    (b'4["0"]', None),
    (b"4 0", None),
    (b"41", None),
    (b"4", None),
    (b"2probe", None),
    (b"\xff40", None),
    (b"", None),
]


@pytest.mark.parametrize(("packet", "session"), CONNECTS)
def test_connect_names_its_session(packet: bytes, session: str | None) -> None:
    """Socket.IO protocol 5: CONNECT is 0 behind Engine.IO's 4, its data is `auth` (chainlit/socket.py)."""
    assert connect_session(packet) == session


ODD_SESSIONS = [
    *('""', '"short"', '"../../x"', '"/tmp/somewhere"', '"session 1"', '"session-1\\n"', '"sessi\\u00f6n-1"'),
    *('"session-\\u0000"', '"session-\\ud800"', f'"{"a" * 65}"', "1", "null", "[]", '{"a":1}', "true"),
]
ODD_AUTHS = [
    *(f'{{"sessionId":{text}}}' for text in ODD_SESSIONS),
    '{"sessionId":"session-1","sessionId":"../../x"}',
    '{"sessionId":"../../x","sessionId":"session-1"}',
    '{"sessionId":"session-1","session_id":"session-2"}',
    '{"session_id":"session-1","sessionI\\u0064":"../../x"}',
    '{"n":1' + "0" * 5000 + ',"sessionId":""}',
]
# Ways to say 40, each of which python-engineio and python-socketio take for a CONNECT to `/`.
WAYS = ["40{}", "40 {}", "40/,{}", "40/?x,{}", "4012{}", "401-{}", "\uff14\uff10{}", "4\u0660{}",
        '40/?{{"sessionId":"session-1"}},{}']  # fmt: skip


def as_said(way: str, auth: str) -> str:
    """A CONNECT packet."""
    return (
        way.replace("{{", "\0").replace("}}", "\1").replace("{}", auth).replace("\0", "{").replace("\1", "}")
    )


@pytest.mark.parametrize("auth", ODD_AUTHS)
@pytest.mark.parametrize("way", [*WAYS, "quoted"])
def test_odd_sessions_are_refused(way: str, auth: str) -> None:
    """Whatever the backend would read as a CONNECT of an odd session is one here, however it is written."""
    said = "4" + json.dumps("0" + auth) if way == "quoted" else as_said(way, auth)
    with pytest.raises(OddId):
        connect_session(said.encode())
    for payload in (
        said,
        f"3\x1e42[]\x1e{said}",
        f'40{{"sessionId":"session-1"}}\x1e{said}',
        "d=" + quote(said),
    ):
        assert may_connect(payload.encode())
        with pytest.raises(OddId):
            connect_in_payload(payload.encode(), 16)


@pytest.mark.parametrize("way", [*WAYS, "quoted"])
def test_ways_to_connect_are_those_of_python_socketio(way: str) -> None:
    """The backend's own parser takes each way for a CONNECT to `/` with this auth."""
    auth = {"sessionId": "../../x"}
    text = json.dumps(auth)
    said = "4" + json.dumps("0" + text) if way == "quoted" else as_said(way, text)
    read = socketio.packet.Packet(encoded_packet=engineio.packet.Packet(encoded_packet=said).data)
    assert (read.packet_type, read.namespace or "/", read.data) == (socketio.packet.CONNECT, "/", auth)


@given(st.text(alphabet='40/,?-{}"sidx1 \n\uff14\u0660', max_size=12))
def test_no_connect_is_overlooked(before: str) -> None:
    """Whatever stands around an auth: what python-socketio connects `/` with is refused if it is odd."""
    said = before + '{"sessionId":"../x"}'
    try:
        message = engineio.packet.Packet(encoded_packet=said)
        read = socketio.packet.Packet(encoded_packet=message.data)
    except Exception:
        return
    if message.packet_type != engineio.packet.MESSAGE:
        return
    odd = read.packet_type == socketio.packet.CONNECT and read.data == {"sessionId": "../x"}
    if odd and (read.namespace or "/") == "/":
        with pytest.raises(OddId):
            connect_session(said.encode())


@given(st.uuids().map(str), st.sampled_from(["/", "/chat"]), st.dictionaries(st.text(max_size=5), st.text()))
def test_connects_as_python_socketio_writes_them(session: str, namespace: str, more: dict[str, str]) -> None:
    """What the client library writes is read, among whatever else `auth` holds."""
    data = more | {"sessionId": session}
    encoded = socketio.packet.Packet(socketio.packet.CONNECT, data, namespace).encode()
    packet = engineio.packet.Packet(engineio.packet.MESSAGE, encoded).encode()
    assert connect_session(packet.encode()) == session


def test_connect_is_found_among_the_packets_of_a_poll() -> None:
    """Engine.IO protocol 4: a payload is packets joined by the record separator."""
    assert connect_in_payload(b'2\x1e3\x1e40{"sessionId":"session-1"}\x1e42["x"]', 16) == "session-1"
    assert connect_in_payload(b'40/chat,\x1e40{"sessionId":"session-1"}', 16) == "session-1"
    assert connect_in_payload(b"40\x1e42[]", 16) == ""
    assert connect_in_payload(b'2\x1e42["40{}"]', 16) is None
    assert connect_in_payload(b"", 16) is None


def test_packets_of_a_payload_are_counted_before_they_are_read() -> None:
    """One byte of framing each: a payload may be nothing but packets, and each would be looked at."""
    connect = b'40{"sessionId":"session-1"}'
    assert connect_in_payload(b"\x1e".join([b"2"] * 15 + [connect]), 16) == "session-1"
    for payload in (b"\x1e".join([b"2"] * 16 + [connect]), b"\x1e" * 1_000_000, b"d=" + b"%1E" * 100):
        with pytest.raises(OverLimit) as caught:
            connect_in_payload(payload, 16)
        assert (caught.value.limit, caught.value.status) == (Limit.PACKETS, 413)
    assert connect_in_payload(b"\x1e".join([b"2"] * 99 + [connect]), 100) == "session-1"
    with pytest.raises(OverLimit):
        connect_in_payload(b"d=2" + b"&a=b" * 100_000, 16)


def test_a_number_of_a_packet_is_not_read_for_ever() -> None:
    """python-socketio takes a hundred digits and refuses more."""
    for digit in ("1", "\u0660", "\xb2"):
        connect = f'40{digit * 100}{{"sessionId":"session-1"}}'
        assert connect_session(connect.encode()) == "session-1"
        with pytest.raises(OddId):
            connect_session(f"40{digit * 1000}".encode())


def test_the_sid_of_a_long_query_is_found_in_one_pass() -> None:
    """A query of thirty thousand bytes is no reason to look at a billion."""
    begun = process_time()
    for query in (b"xsid=" * 20_000, b"&sid=" * 20_000, b"sid=&" * 20_000, b"&xsid=" * 20_000):
        assert query_sid(query) is None
        assert query_sid(query + b"&sid=s") == b"s"
    assert process_time() - begun < 0.5  # seconds; 0.02 here, and 8 when each was looked at to its end


# a JSON body, the session that it names
BODIES = [
    (b'{"sessionId":"session-1"}', "session-1"),
    (b'{"session_id":"session-1"}', None),
    (b'{"session_id":"../../x","sessionId":"session-1"}', "session-1"),
    ('{"sessionId":"session-1"}'.encode("utf-16"), "session-1"),
    (b'{"data":{"sessionId":""}}', None),
    (b'["sessionId","a"]', None),
    (b'"sessionId"', None),
    (b"{sessionId:a}", None),
    (b'{"sessionId":"\xff"}', None),
    (b'{"x":1%b}' % (b"0" * 5000), None),
    (b"", None),
]


@pytest.mark.parametrize(("body", "session"), BODIES)
def test_json_bodies_name_sessions(body: bytes, session: str | None) -> None:
    """Each endpoint of Chainlit takes one key; without it none is named."""
    assert session_in_json(body, "sessionId") == session


@pytest.mark.parametrize("body", [*(odd for odd in ODD_AUTHS if "session_id" not in odd), "[" * 100_000])
def test_odd_sessions_in_json_bodies(body: str) -> None:
    """A session that is named is a session id and named once, whichever of two the backend would take."""
    with pytest.raises(OddId):
        session_in_json(body.encode(), "sessionId")


@given(st.text(max_size=70))
def test_session_ids_are_those_of_the_hooks(text: str) -> None:
    """The proxy and the instances take the same for a session id, and it is a plain name of a folder."""
    taken = session_id(text)
    assert (taken is not None) is is_session_id(text)
    assert taken is None or Path("/x", taken).resolve() == Path("/x") / text


@pytest.mark.parametrize(
    ("packet", "head"),
    [
        (b"40", (0, b"/", -1, 0)),
        (b'40{"sid":"x"}', (0, b"/", -1, 0)),
        (b"40/admin", (0, b"/admin", -1, 0)),
        (b"40/admin,{}", (0, b"/admin", -1, 0)),
        (b"40/admin?token=1,{}", (0, b"/admin", -1, 0)),
        (b"42/admin,7[]", (2, b"/admin", 7, 0)),
        (b"4312[]", (3, b"/", 12, 0)),
        (b"452-/admin,7[]", (5, b"/admin", 7, 2)),
        (b"461-[]", (6, b"/", -1, 1)),
        (b"44/admin,{}", (4, b"/admin", -1, 0)),
        (b"2", None),
        (b"6", None),
        (b"", None),
        (b"49", None),
        (b"0{}", None),
    ],
)
def test_packet_heads(packet: bytes, head: tuple[int, bytes, int, int] | None) -> None:
    """Kind, namespace, number and attachments, as python-socketio reads them."""
    found = packet_head(packet)
    assert (found and tuple(found)) == head
    if found is not None:
        judge = socketio.packet.Packet()
        attachments = judge.decode(packet[1:].decode())
        number = -1 if judge.id is None else judge.id
        assert found == (judge.packet_type, (judge.namespace or "/").encode(), number, attachments)
