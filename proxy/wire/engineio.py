"""Engine.IO and Socket.IO packets, as far as affinity must read them (Engine.IO protocol 4, Socket.IO 5).

A polling payload is packets joined by the record separator; a websocket message is one packet. The first
byte is the Engine.IO type, in a message the second is the Socket.IO type. Only three things are read: the
`sid` in the handshake's OPEN packet, which is rewritten to carry the pin, with the client's patience; the
session that a CONNECT packet names; and whether a packet says anything at all. Chainlit makes a folder's name
of a session id and removes that folder, so a CONNECT is read exactly as python-engineio and python-socketio
read it, and one that names anything but a session id raises OddId.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from proxy.errors import Limit, Odd, OddId, OverLimit

SEPARATOR = b"\x1e"  # Engine.IO protocol 4: joins the packets of a polling payload
_SEPARATOR = SEPARATOR.decode()
FORM = b"d="  # how a payload of JSONP begins (engineio/payload.py, decode)
_MOST_FIELDS = 64  # of a JSONP payload, which is a form of one field
_CONNECT_KEYS = ("sessionId", "session_id")  # the second is read so that it can be refused
_LONGEST_NUMBER = 100  # digits of a packet's id: python-socketio takes no more (socketio/packet.py)
_OPEN_SID = re.compile(rb'("sid"\s*:\s*")([A-Za-z0-9_\-]{1,200})(")')
_OPEN_TIMEOUT = re.compile(rb'("pingTimeout"\s*:\s*)([0-9]{1,12})(?![0-9.eE])')
_PING_INTERVAL = re.compile(rb'("pingInterval"\s*:\s*)([0-9]{1,12})(?![0-9.eE])')
_SID_QUERY = re.compile(rb"(?:^|(?<=&))sid=([^&]+)")
_MOST_PATIENCE = 86400.0  # seconds; browsers' timers overflow after 24 days, and are due at once
OVERDUE = 27.0  # seconds: `ping_overdue` by the settings that Chainlit leaves as they are
_LATE = 2000  # milliseconds
LONGEST_SID = 200  # characters, with the pin; python-engineio's own have 20


def query_sid(query: bytes) -> bytes | None:
    """The `sid` of a poll's or upgrade's query, as it came; an empty one is none, as for python-engineio."""
    _, said, rest = (b"", b"sid=", query[4:]) if query.startswith(b"sid=") else query.partition(b"&sid=")
    while said:
        sid, end, after = rest.partition(b"&")
        if sid:
            return sid
        _, said, rest = (end + after).partition(b"&sid=")
    return None


def with_sid(query: bytes, sid: bytes) -> bytes:
    """The query with its `sid` replaced."""
    return _SID_QUERY.sub(lambda _: b"sid=" + sid, query, count=1)


def without_sid(query: bytes, transport: bytes) -> bytes:
    """The query of a handshake by `transport` that goes for the same client."""
    kept = [part for part in query.split(b"&") if not part.startswith((b"sid=", b"transport="))]
    return b"&".join([*kept, b"transport=" + transport])


def open_sid(payload: bytes) -> bytes | None:
    """The sid that the OPEN packet at the start of a handshake's answer mints, or None."""
    if not payload.startswith(b"0{"):
        return None
    match = _OPEN_SID.search(payload.split(SEPARATOR, 1)[0])
    return match[2] if match else None


def rewrite_open(payload: bytes, sid: bytes, patience: float = 0.0) -> bytes:
    """The handshake's answer with another sid in its OPEN packet.

    The client is to be patient for so many seconds after a ping should have come (`pingTimeout`), or for what
    the packet says if that is longer.
    """
    packet, separator, rest = payload.partition(SEPARATOR)
    packet = _OPEN_SID.sub(lambda match: match[1] + sid + match[3], packet, count=1)
    least = int(min(patience, _MOST_PATIENCE) * 1000)
    packet = _OPEN_TIMEOUT.sub(lambda match: match[1] + b"%d" % max(int(match[2]), least), packet, count=1)
    return packet + separator + rest


def ping_overdue(payload: bytes) -> float:
    """Seconds after a ping in which another should have come, by the OPEN packet at the start of a payload.

    Most clients wait for as long as `pingTimeout` beyond the interval. That of python-engineio gives up 5
    seconds after it if there was nothing to write, such as a pong (engineio/async_client.py, _write_loop).
    """
    interval, timeout = _PING_INTERVAL.search(payload), _OPEN_TIMEOUT.search(payload)
    if interval is None or timeout is None:
        return OVERDUE
    return (int(interval[2]) + min(int(timeout[2]) / 4, _LATE)) / 1000


def is_quiet(packet: bytes) -> bool:
    """Whether a packet is only transport talk (probe, heartbeat, upgrade): CONNECT may still come."""
    return packet[:1] in (b"2", b"3", b"5", b"6")


def connect_session(packet: bytes) -> str | None:
    """The Chainlit session that a Socket.IO CONNECT packet names, "" if it names none; None: no CONNECT.

    `40{"sessionId":...}`, or `40/namespace,{...}` (chainlit/socket.py, connect). Chainlit's own namespace is
    `/`: what any other is told is the app's, and no session if it is not one. Raises OddId.
    """
    try:
        return _connect(packet.decode())
    except UnicodeDecodeError:
        return None  # neither a text frame nor a payload


def connect_in_payload(payload: bytes, most: int) -> str | None:
    """As connect_session, for the body of a poll POST: every packet of it is looked at.

    Raises OverLimit for more than `most` packets, before any of them is read. python-engineio takes 16, but
    an app may have raised that (engineio/payload.py, max_decode_packets): a CONNECT may come behind them.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    if text.startswith("d="):  # JSONP (engineio/payload.py, decode)
        if text.count("%1E") + text.count("%1e") >= most:
            raise OverLimit(Limit.PACKETS, "too many packets in an Engine.IO payload", status=413)
        try:
            text = parse_qs(text, max_num_fields=_MOST_FIELDS).get("d", [""])[0]
        except ValueError:
            raise OverLimit(Limit.PACKETS, "too many fields in an Engine.IO payload", status=413) from None
    if text.count(_SEPARATOR) >= most:
        raise OverLimit(Limit.PACKETS, "too many packets in an Engine.IO payload", status=413)
    named = None
    for packet in text.split(_SEPARATOR):
        session = _connect(packet)
        if session is not None:
            named = named or session
    return named


def ends_transport(payload: bytes) -> bool:
    """Whether a client that polls says by a payload that it leaves (engineio/async_client.py, disconnect)."""
    return payload == CLOSE or payload.endswith(_LAST_CLOSE)


def may_connect(payload: bytes) -> bool:
    """Whether a payload has to be read for a CONNECT; not one pong or one event, as nearly all are."""
    return not (payload[:2] in (b"42", b"3") and SEPARATOR not in payload)


def _connect(packet: str) -> str | None:
    """As connect_session, of text (engineio/packet.py and socketio/packet.py, decode)."""
    if packet.startswith("40"):
        text = packet[2:]
    else:
        if _digit(packet) != 4:  # of whatever script: that is how `int` reads
            return None
        text = packet[1:]
        if text[:1] in _STRING:
            with suppress(ValueError, RecursionError):  # then it is the text that counts
                said = json.loads(text)
                if not isinstance(said, str):
                    return None
                text = said
        if _digit(text) != 0:
            return None
        text = text[1:]
    count, dash, rest = text.partition("-")
    if dash and count.isdigit():
        text = rest
    namespace = "/"
    if text.startswith("/"):
        namespace, _, text = text.partition(",")
        namespace = namespace.partition("?")[0]
        if namespace == _RESERVED:
            raise OddId(Odd.NAMESPACE, "reserved Socket.IO namespace")
    at, end = 0, min(len(text), _LONGEST_NUMBER + 1)
    while at < end and text[at].isdigit():
        at += 1
    try:
        if at > _LONGEST_NUMBER:
            raise OddId(Odd.SESSION, "packet number too long to find its session id")
        return _named(text[at:], *_CONNECT_KEYS) or ""
    except OddId:
        if namespace == "/":
            raise
        return ""


def _digit(text: str) -> int | None:
    return int(text[0]) if text[:1].isdecimal() else None


def session_in_json(body: bytes, key: str) -> str | None:
    """The session id that is called `key` at the top of a JSON object, or None. Raises OddId."""
    return _named(body, key)


def _named(text: str | bytes, *keys: str) -> str | None:
    try:
        content = _decode(
            text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
        )
    except ValueError:
        return None  # nor can the backend read it
    except RecursionError:
        raise OddId(Odd.SESSION, "JSON nested too deeply to find its session id") from None
    if not isinstance(content, _Pairs):
        return None
    named = [value for name, value in content.pairs if name in keys]
    if not named:
        return None
    session = session_id(named[0]) if len(named) == 1 and isinstance(named[0], str) else None
    if session is None:
        raise OddId(Odd.SESSION, ODD_SESSION)
    return session


class _Pairs:
    """A JSON object with every pair that it was given: parsers differ in which of two they take."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        self.pairs = pairs


_decode = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=len).decode  # numbers of any length


def session_id(text: str) -> str | None:
    """`text` if it is a session id; Chainlit's pages make a uuid. The same as in `sessions.store`."""
    return text if _SESSION.fullmatch(text) else None


_STRING = ('"', " ", "\t", "\n", "\r")  # how a JSON string begins
_SESSION = re.compile("[A-Za-z0-9_-]{8,64}")
ODD_SESSION = "malformed session id: one of 8 to 64 letters, digits, - and _ is allowed"
UNKNOWN_SESSION = b'{"code":1,"message":"Session ID unknown"}'  # Engine.IO's own answer, status 400

# Types of Socket.IO packets (socket.io-protocol 5)
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)
MAIN = b"/"  # the namespace that is meant where none is named: Chainlit's own
MOST_PACKETS = 16  # of one payload: python-engineio refuses more (engineio/payload.py, max_decode_packets)
HAND_OVER = b"/chainlit-proxy"  # where the proxy speaks with an instance: see `affinity.handing_over`
# Engine.IO protocol 4: types of packets, and whole ones that say nothing
OPEN, CLOSE, PING, PONG, UPGRADE, NOOP = b"0", b"1", b"2", b"3", b"5", b"6"
_LAST_CLOSE = SEPARATOR + CLOSE
_RESERVED = HAND_OVER.decode()
_SOCKETIO = re.compile(rb"4([0-6])(?:([0-9]{1,9})-)?(?:(/[^,?]*)(?:\?[^,]*)?(?:,|\Z))?([0-9]{0,18})")


class PacketHead(NamedTuple):
    """What a Socket.IO packet begins with."""

    kind: int
    namespace: bytes
    number: int  # by which it is acknowledged, -1 if it is not
    attachments: int  # binary messages that belong to it and follow


def packet_head(packet: bytes) -> PacketHead | None:
    """Read how a Socket.IO packet begins (socketio/packet.py, decode); None: transport talk, or no packet."""
    match = _SOCKETIO.match(packet)
    if match is None:
        return None
    kind, attachments, namespace, number = match.groups()
    return PacketHead(int(kind), namespace or MAIN, int(number or -1), int(attachments or 0))


def packets_of(payload: bytes) -> list[bytes]:
    """The packets of a poll POST's body, that of JSONP too (engineio/payload.py, decode)."""
    if payload.startswith(FORM):
        payload = parse_qs(payload.decode("utf-8", "replace")).get("d", [""])[0].encode()
    return payload.split(SEPARATOR)
