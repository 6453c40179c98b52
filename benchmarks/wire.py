"""The few bytes of HTTP, WebSocket and Engine.IO that the backend and the load generator share.

Built to cost little, not to be right about every peer: both ends are ours, and what stands between them is
the thing that is measured. Only masked and unmasked text frames below 64 KiB occur, and one close frame.
"""

import re
from typing import NamedTuple

HEAD_END = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
SOCKETIO = b"/ws/socket.io/?EIO=4&transport="

# What Chainlit sends for one streamed token, in its usual length of 110 bytes.
TOKEN = (
    b'42["stream_token",{"id":"0b9f6f0e-6d5c-4f6e-9d39-2f6d0f5b8a11","token":" together","isSequence":false}]'
)
MASK = b"\x37\xfa\x21\x3d"
CLOSE = b"\x88"  # how a close frame begins
GOODBYE = CLOSE + b"\x82" + MASK + b"\x34\x13"  # of a browser that leaves the page: 1001


class Message(NamedTuple):
    """One HTTP message, cut off the front of what was received."""

    head: bytes
    body: bytes
    rest: bytes


def cut_message(data: bytes) -> Message | None:
    """The first whole message in `data`, None while it is not complete."""
    end = data.find(HEAD_END)
    if end < 0:
        return None
    head, start = data[:end], end + len(HEAD_END)
    match = CONTENT_LENGTH.search(head)
    stop = start + int(match[1]) if match else start
    if len(data) < stop:
        return None
    return Message(head, data[start:stop], data[stop:])


def frame(payload: bytes, *, masked: bool = False) -> bytes:
    """One unfragmented text frame."""
    size = len(payload)
    bit = 0x80 if masked else 0
    head = bytes((0x81, bit | size)) if size < 126 else bytes((0x81, bit | 126)) + size.to_bytes(2, "big")
    return head + MASK + _mask(payload, MASK) if masked else head + payload


def cut_frame(data: bytes) -> tuple[bytes, bytes] | None:
    """The payload of the first whole frame and what follows it, None while it is not complete."""
    if len(data) < 2:
        return None
    masked, size, start = data[1] & 0x80, data[1] & 0x7F, 2
    if size == 126:
        if len(data) < 4:
            return None
        size, start = int.from_bytes(data[2:4], "big"), 4
    key = data[start : start + 4] if masked else b""
    start += len(key)
    stop = start + size
    if len(data) < stop:
        return None
    payload = data[start:stop]
    return (_mask(payload, key) if masked else payload), data[stop:]


def _mask(payload: bytes, key: bytes) -> bytes:
    """RFC 6455 section 5.3, by one wide exclusive or."""
    size = len(payload)
    wide = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(wide, "big")).to_bytes(size, "big")
