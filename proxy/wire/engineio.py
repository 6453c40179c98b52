"""Engine.IO and Socket.IO packets, as far as affinity must read them (Engine.IO protocol 4, Socket.IO 5).

A polling payload is packets joined by the record separator; a websocket message is one packet. The first
byte is the Engine.IO type, in a message the second is the Socket.IO type. Only three things are read: the
`sid` in the handshake's OPEN packet, which is rewritten to carry the pin; the session that a CONNECT
packet names; and whether a packet says anything at all.
"""

import json
import re

SEPARATOR = b"\x1e"  # Engine.IO protocol 4: joins the packets of a polling payload
_OPEN_SID = re.compile(rb'("sid"\s*:\s*")([A-Za-z0-9_\-]{1,200})(")')
_AND = ord("&")
_SID_QUERY = re.compile(rb"(?:^|(?<=&))sid=([^&]*)")


def query_sid(query: bytes) -> bytes | None:
    """The `sid` of a poll's or upgrade's query, as it came."""
    at = query.find(b"sid=")
    while at > 0 and query[at - 1] != _AND:
        at = query.find(b"sid=", at + 4)
    if at < 0:
        return None
    end = query.find(b"&", at)
    return query[at + 4 :] if end < 0 else query[at + 4 : end]


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


def rewrite_open(payload: bytes, sid: bytes) -> bytes:
    """The handshake's answer with another sid in its OPEN packet."""
    packet, separator, rest = payload.partition(SEPARATOR)
    return _OPEN_SID.sub(lambda match: match[1] + sid + match[3], packet, count=1) + separator + rest


def is_quiet(packet: bytes) -> bool:
    """Whether a packet is only transport talk (probe, heartbeat, upgrade): CONNECT may still come."""
    return packet[:1] in (b"2", b"3", b"5", b"6")


def connect_session(packet: bytes) -> str | None:
    """The Chainlit session that a Socket.IO CONNECT packet names, "" if it names none; None: no CONNECT.

    `40{"sessionId":...}`, or `40/namespace,{...}` (chainlit/socket.py, connect).
    """
    if not packet.startswith(b"40"):
        return None
    brace = packet.find(b"{")
    if brace < 0:
        return ""
    return session_in_json(packet[brace:]) or ""


def connect_in_payload(payload: bytes) -> str | None:
    """As connect_session, for the body of a poll POST."""
    for packet in payload.split(SEPARATOR):
        session = connect_session(packet)
        if session is not None:
            return session
    return None


def session_in_json(body: bytes) -> str | None:
    """The `sessionId` or `session_id` at the top of a JSON object, or None; never raises."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    session = content.get("sessionId") or content.get("session_id")
    return session_id(session) if isinstance(session, str) else None


def session_id(text: str) -> str | None:
    """`text` if it is a session id worth looking up: Chainlit's are uuids, an app's own any short text.

    It goes into a directory, a hash and a query, so it is short and printable ASCII.
    """
    return text if 0 < len(text) <= LONGEST_SESSION and text.isascii() and text.isprintable() else None


LONGEST_SESSION = 128  # a uuid has 36; more is not Chainlit's and would fill the directory
UNKNOWN_SESSION = b'{"code":1,"message":"Session ID unknown"}'  # Engine.IO's own answer, status 400
