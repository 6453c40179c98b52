"""Each rule of `http2_rules`: in memory, one connection that no socket has, of a proxy without a backend."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hpack import Decoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from proxy.config import Config
from proxy.config.sections import LimitSettings
from proxy.dataplane.http2 import Http2Connection
from proxy.dataplane.http2_frames import Frames
from proxy.dataplane.http2_stream import Stream
from proxy.parts import Parts
from tests.dataplane.http2_rules import ACK, BEGIN, CASES, PING, Case, block, good, page, post, raw
from tests.dataplane.loop import run_loop

BACKENDS = [{"name": "a", "url": "http://127.0.0.1:1"}]


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.extra: dict[str, Any] = {"peername": ("192.0.2.1", 4000), "sockname": ("192.0.2.2", 443)}

    def write(self, data: bytes) -> None:
        """As Transport."""
        self.written += data

    def close(self) -> None:
        """As Transport."""
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        """As Transport."""
        return self.closed

    def get_extra_info(self, name: str) -> Any:
        """As Transport."""
        return self.extra.get(name)

    def get_write_buffer_size(self) -> int:
        """As Transport."""
        return 0


class Nobody:
    """As Host: it forgets everything."""

    def admitted(self, connection: object) -> None:
        """As Host."""

    def left(self, connection: Stream) -> None:
        """As Host."""

    def tunnel_opened(self, tunnel: object) -> None:
        """As Host."""

    def tunnel_closed(self, tunnel: object) -> None:
        """As Host."""

    def http2_admitted(self, connection: Http2Connection) -> None:
        """As Host."""

    def http2_left(self, connection: Http2Connection) -> None:
        """As Host."""


def hear(said: list[bytes]) -> tuple[list[Frame], bool]:
    """What a client that says this is answered, a piece in each turn, and whether it was closed."""
    wire = Wire()

    async def main() -> None:
        parts = Parts(Config.model_validate({"backends": BACKENDS, "log": {"access": False}}))
        async with asyncio.TaskGroup() as tasks:
            parts.plane.site.run_in(tasks)
            connection = Http2Connection(parts.plane.site, Nobody())
            connection.connection_made(cast("asyncio.Transport", wire))
            for piece in said:
                if not wire.closed:
                    connection.data_received(piece)
                for _ in range(3):
                    await asyncio.sleep(0)
            connection.connection_lost(None)

    run_loop(main(), debug=False)
    frames, rest = [], wire.written
    while rest:
        frame, length = Frame.parse_frame_header(memoryview(rest[:9]))
        frame.parse_body(memoryview(rest[9 : 9 + length]))
        frames.append(frame)
        rest = rest[9 + length :]
    return frames, wire.closed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("bytewise", [False, True])
def test_rules(case: Case, bytewise: bool) -> None:
    """Each break of a rule is answered with the code that the RFC names, also when it comes bytewise."""
    said = case.said if isinstance(case.said, list) else [case.said]
    if bytewise:
        said = [bytes((byte,)) for piece in said for byte in piece]
        if len(said) > 4000 or (isinstance(case.said, list) and len(case.said) == 1):
            pytest.skip("too long, or about what comes at once")
    frames, closed = hear([case.begin, *said])
    goaway = [frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)]
    resets = [frame.error_code for frame in frames if isinstance(frame, RstStreamFrame) and frame.error_code]
    assert goaway == ([] if case.goaway is None else [case.goaway])
    assert resets == ([] if case.reset is None else [case.reset])
    assert closed == (case.goaway is not None)
    heads = [frame for frame in frames if isinstance(frame, HeadersFrame)]
    assert [dict(Decoder().decode(frame.data, raw=True))[b":status"] for frame in heads[:1]] == (
        [b"%d" % case.status] if case.status else []
    )


def test_the_page_has_the_rules() -> None:
    """What the documentation tells is what is tested here."""
    assert Path("docs/http2.md").read_text(encoding="utf-8") == page()


def test_preface() -> None:
    """Ours are SETTINGS, and a connection that begins otherwise is closed (RFC 9113 section 3.4)."""
    frames, closed = hear([BEGIN])
    assert isinstance(frames[0], SettingsFrame)
    assert not closed
    _, closed = hear([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
    assert closed


@pytest.mark.parametrize("limits", [{"head": 4 << 30}, {"http2_streams": 1 << 40}])
def test_limits_may_be_larger_than_settings(limits: dict[str, int]) -> None:
    """Then the largest setting there can be is offered: a file may say 4G (section 6.5.1)."""
    sent = memoryview(Frames(LimitSettings(**limits), websockets=True).to_send())
    frame, length = Frame.parse_frame_header(sent[:9])
    frame.parse_body(sent[9 : 9 + length])
    assert isinstance(frame, SettingsFrame)
    assert (1 << 32) - 1 in frame.settings.values()


def test_ping() -> None:
    """A PING is answered with its content, and its answer with nothing (section 6.7)."""
    frames, _ = hear([BEGIN, raw(PING, 0, 0, b"12345678") + raw(PING, ACK, 0, b"12345678")])
    pings = [frame for frame in frames if isinstance(frame, PingFrame)]
    assert [(frame.opaque_data, "ACK" in frame.flags) for frame in pings] == [(b"12345678", True)]


@pytest.mark.parametrize("seed", range(40))
def test_noise(seed: int) -> None:
    """Frames by chance, between good requests: nothing but what the rules have for them comes of it."""
    chance = Random(seed)
    for _ in range(10):
        said = [BEGIN, good(), post(3)]
        for number in range(5, 25, 2):
            payload = chance.choice(
                [b"", chance.randbytes(4), chance.randbytes(5), chance.randbytes(40), block()]
            )
            kind, flags = chance.randrange(11), chance.choice([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF])
            stream = chance.choice([0, 1, 3, number, number])
            said.append(
                raw(kind, flags, stream, payload) + (good(number + 100) if chance.random() < 0.3 else b"")
            )
        hear(said if chance.random() < 0.5 else [b"".join(said)])
