"""Clients that speak HTTP/2 to the proxy: by the library, or frame by frame where that is too good."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hpack import Decoder, Encoder
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame

from tests.dataplane.peers import WAIT, Peer
from tests.dataplane.world import World
from tests.support.certificates import Authority

NAME = "chat.test"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = Sequence[tuple[bytes, bytes]]


def request(
    path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET"
) -> list[tuple[bytes, bytes]]:
    """The field list of a request."""
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":authority", NAME.encode()), (b":path", path)]
    return [*pseudo, *more]


@dataclass
class Answer:
    """What has come of a response."""

    informed: list[dict[bytes, bytes]] = field(default_factory=list)
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    whole: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """0 before it has come."""
        return int(dict(self.fields).get(b":status", b"0"))

    def get(self, name: bytes) -> bytes | None:
        """A field's value."""
        return dict(self.fields).get(name)


async def _connect(world: World, authority: Authority) -> Peer:
    context = authority.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with asyncio.timeout(WAIT):
        reader, writer = await asyncio.open_connection(*world.address, ssl=context, server_hostname=NAME)
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert session.selected_alpn_protocol() == "h2"
    world.clients.append(Peer(reader, writer))
    return world.clients[-1]


async def forwarded(world: World, authority: Authority) -> Peer:
    """A connection of 203.0.113.7 behind a TCP load balancer, which is asked nothing yet."""
    context = authority.client()
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(*world.address)
    writer.write(b"PROXY TCP4 203.0.113.7 127.0.0.1 4000 443\r\n")
    await writer.start_tls(context, server_hostname=NAME)
    world.clients.append(Peer(reader, writer))
    return world.clients[-1]


class Browser:
    """A client that keeps the rules; it opens its windows as the library does, unless it is slow."""

    def __init__(self, peer: Peer, *, slow: bool = False) -> None:
        self.peer = peer
        self.slow = slow
        self.h2 = H2Connection(
            H2Configuration(
                header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.answers: dict[int, Answer] = {}
        self.events: list[Event] = []
        self.goaway: ConnectionTerminated | None = None
        self.h2.initiate_connection()
        self.flush()

    @classmethod
    async def open(cls, world: World, authority: Authority, *, slow: bool = False) -> "Browser":
        """A new connection."""
        return cls(await _connect(world, authority), slow=slow)

    def flush(self) -> None:
        """Send what has gathered."""
        self.peer.say(self.h2.data_to_send())

    def ask(
        self, path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET", ends: bool = True
    ) -> int:
        """Begin a request; return its stream."""
        number = self.h2.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.h2.send_headers(number, request(path, *more, method=method), end_stream=ends)
        self.flush()
        return number

    def say(self, number: int, data: bytes, *, ends: bool = False) -> None:
        """Send some of a body, which the windows have room for."""
        while len(data) > 16384:
            self.h2.send_data(number, data[:16384])
            data = data[16384:]
        self.h2.send_data(number, data, end_stream=ends)
        self.flush()

    async def hear(self) -> None:
        """Take what comes next; the end of the connection is the end of all answers."""
        async with asyncio.timeout(WAIT):
            data = await self.peer.reader.read(65536)
        if not data:
            raise EOFError
        for event in self.h2.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: Any) -> None:
        self.events.append(event)
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0, Answer())
        if isinstance(event, ResponseReceived):
            answer.fields = list(event.headers or [])
        elif isinstance(event, InformationalResponseReceived):
            answer.informed.append(dict(event.headers or []))
        elif isinstance(event, DataReceived):
            answer.body += event.data or b""
            if not self.slow:
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, TrailersReceived):
            answer.trailers = dict(event.headers or [])
        elif isinstance(event, StreamEnded):
            answer.whole = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code or 0)
        elif isinstance(event, ConnectionTerminated):
            self.goaway = event

    async def answer(self, number: int, *, to_head: bool = False) -> Answer:
        """What a request is answered, when that is whole, or was reset."""
        found = self.answers[number]
        while not (found.whole or found.reset is not None or (to_head and found.fields)):
            await self.hear()
        return found

    async def gone(self) -> int | None:
        """The proxy closes the connection; return the code of its GOAWAY."""
        try:
            while True:
                await self.hear()
        except (EOFError, ConnectionError):
            return None if self.goaway is None else int(self.goaway.error_code or 0)


class Websocket:
    """A websocket on a stream of a browser (RFC 8441); as a Peer."""

    def __init__(self, client: Browser, number: int) -> None:
        self.client = client
        self.number = number
        self._heard = 0  # bytes

    @classmethod
    async def open(cls, client: Browser, path: bytes, cookie: bytes) -> "Websocket":
        """Ask for one, as Chromium does; it is there."""
        number = client.ask(
            path,
            (b":protocol", b"websocket"),
            (b"sec-websocket-version", b"13"),
            (b"cookie", cookie),
            method=b"CONNECT",
            ends=False,
        )
        assert (await client.answer(number, to_head=True)).status == 200
        return cls(client, number)

    @property
    def answer(self) -> Answer:
        """What has come of it."""
        return self.client.answers[self.number]

    def say(self, data: bytes) -> None:
        """Send some bytes."""
        self.client.say(self.number, data)

    async def some(self) -> bytes:
        """What comes next."""
        while len(self.answer.body) == self._heard:
            await self.client.hear()
        heard, self._heard = self.answer.body[self._heard :], len(self.answer.body)
        return heard


class Raw:
    """A client that says whatever frames its test wants, and hears frames."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.encoder = Encoder()
        self.decoder = Decoder()
        self._buffer = b""

    @classmethod
    async def open(
        cls, world: World, authority: Authority, *frames: Frame | bytes, preface: bytes = PREFACE
    ) -> "Raw":
        """A new connection that begins with the preface and its settings, and these."""
        raw = cls(await _connect(world, authority))
        raw.peer.say(preface)
        return raw.say(SettingsFrame(0), *frames)

    def say(self, *frames: Frame | bytes) -> "Raw":
        """Send frames in one piece."""
        self.peer.say(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))
        return self

    def head(self, number: int, fields: Fields | None = None, *flags: str) -> HeadersFrame:
        """A HEADERS frame; its flags are END_HEADERS and END_STREAM if none are named."""
        frame = HeadersFrame(number, self.encoder.encode(request() if fields is None else fields))
        for flag in flags or ("END_HEADERS", "END_STREAM"):
            frame.flags.add(flag)
        return frame

    async def hear(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while True:
            if len(self._buffer) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
                if len(self._buffer) >= 9 + length:
                    frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
                    self._buffer = self._buffer[9 + length :]
                    return frame
            try:
                async with asyncio.timeout(WAIT):
                    data = await self.peer.reader.read(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._buffer += data

    async def wait_for(self, kind: type[Frame], number: int | None = None) -> Any:
        """The next frame of a kind, of a stream."""
        while True:
            frame = await self.hear()
            assert frame is not None, f"the connection ended before a {kind.__name__}"
            if isinstance(frame, kind) and number in (None, frame.stream_id):
                return frame

    async def frames(self) -> list[Frame]:
        """All frames until the connection ends."""
        found = []
        while (frame := await self.hear()) is not None:
            found.append(frame)
        return found
