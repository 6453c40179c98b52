"""A stand-in for several Chainlit instances: `python -m benchmarks.backend COUNT`.

One process, one listening port for each instance; it prints the ports as JSON and ends when its standard
input does. An instance answers like Chainlit's Engine.IO as far as the load generator goes: the handshake,
polls, the websocket with or without polls before it, and streams of frames. It knows the `sid`s it has
handed out and the sessions that live in it, and refuses those of another instance, so a proxy that sends a
request to the wrong one is found out.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import secrets
import sys

import uvloop

from benchmarks.wire import CLOSE, CONTENT_LENGTH, HEAD_END, SOCKETIO, TOKEN, cut_frame, cut_message, frame

SID = re.compile(rb"[?&]sid=([^& ]+)")
SESSION = re.compile(rb"[?&]session_id=([^& ]+)")
KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)", re.IGNORECASE)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
TOKEN_FRAME = frame(TOKEN)
UPLOAD = b"POST /project/file?"
BLOCK = bytes(65_536)  # what is written of a download at once
CONNECTED = b'40{"sid":"' + b"s" * 20 + b'"}'
ELSEWHERE = b'44{"message":"the session lives in another instance"}'


class Instance:
    """What one stand-in remembers; made for each port, shared by its connections."""

    def __init__(self, homes: "dict[bytes, Instance]") -> None:
        """`homes` has the sessions of all instances."""
        self.sids: set[bytes] = set()
        self.unacknowledged: dict[bytes, bytes] = {}  # sid -> the answer to its CONNECT, until it is fetched
        self.homes = homes

    def handshake(self) -> bytes:
        """Mints a sid, as engineio/base_server.py does, and tells it in the OPEN packet."""
        sid = secrets.token_urlsafe(15)
        self.sids.add(sid.encode())
        opened = {
            "sid": sid,
            "upgrades": ["websocket"],
            "pingTimeout": 20000,
            "pingInterval": 25000,
            "maxPayload": 1000000,
        }
        return b"0" + json.dumps(opened, separators=(",", ":")).encode()

    def connect(self, packet: bytes) -> bytes:
        """The answer to a Socket.IO CONNECT: from now on the session lives here, if it lives nowhere else."""
        home = self.homes.setdefault(json.loads(packet[2:])["sessionId"].encode(), self)
        return CONNECTED if home is self else ELSEWHERE


class Connection(asyncio.Protocol):
    """One connection from the proxy: requests in order, then perhaps a websocket."""

    transport: asyncio.Transport

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.data = b""
        self.websocket = False
        self.paused = False
        self.owed = 0  # frames of the stream that are still to be sent
        self.upload = 0  # bytes of a file that are still to come
        self._is_at_home = False  # whether its session lives here
        self.download = 0  # bytes of a file that are still to be sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, _exc: Exception | None) -> None:
        """Ends the stream and the file."""
        self.owed = self.download = 0

    def pause_writing(self) -> None:
        """The proxy is slower than the stream."""
        self.paused = True

    def resume_writing(self) -> None:
        """The proxy has caught up."""
        self.paused = False
        self._send_file()

    def data_received(self, data: bytes) -> None:
        """Answers every whole request or frame that has come."""
        if self.upload:
            self._take_file(data)
            return
        self.data += data
        if self.data.startswith(UPLOAD) and HEAD_END in self.data:
            head, _, data = self.data.partition(HEAD_END)
            match = CONTENT_LENGTH.search(head)
            self.data, self.upload = b"", int(match[1]) if match else 0
            self._is_at_home = self._has_session(head.split(b"\r\n", 1)[0])
            self._take_file(data)
        while not self.websocket and (message := cut_message(self.data)):
            self.data = message.rest
            self._request(message.head, message.body)
        while self.websocket and (cut := cut_frame(self.data)):
            if self.data.startswith(CLOSE):
                self.transport.write(CLOSE + b"\x02" + cut[0])
                self.transport.close()
            payload, self.data = cut
            self._frame(payload)

    def _take_file(self, data: bytes) -> None:
        """Forgets the bytes of an upload and answers the last."""
        self.upload -= len(data)
        if self.upload <= 0 and self._is_at_home:
            self._answer(b"200 OK", b'{"id":"0"}')
        elif self.upload <= 0:
            self._answer(b"404 Not Found", b'{"detail":"Session not found"}')

    def _send_file(self) -> None:
        """Sends of a download what the connection takes."""
        while self.download and not self.paused:
            block = BLOCK[: self.download]
            self.download -= len(block)
            self.transport.write(block)

    def _request(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        sid = match[1] if (match := SID.search(target)) else None
        if sid is not None and sid not in self.instance.sids:
            self._answer(b"400 Bad Request", b'"Invalid session ' + sid + b'"')
        elif target.startswith(SOCKETIO + b"websocket"):
            self._upgrade(head, sid)
        elif target.startswith(SOCKETIO):
            self._answer(b"200 OK", self._poll(method, sid, body))
        elif target.startswith(b"/project/file/"):
            self._locate(target)
        elif target.startswith(b"/public/"):
            self._answer(b"200 OK", b"", size=int(target.rpartition(b"/")[2]))
        elif target == b"/set-session-cookie":
            session = json.loads(body)["session_id"].encode()
            cookie = b"Set-Cookie: X-Chainlit-Session-id=" + session + b"; HttpOnly; Path=/; SameSite=lax\r\n"
            self._answer(b"200 OK", b'{"message":"Session cookie set"}', cookie)
        else:
            self._answer(b"200 OK", b'{"status":"ok"}')

    def _poll(self, method: bytes, sid: bytes | None, body: bytes) -> bytes:
        """The body of an answer on the polling transport."""
        instance = self.instance
        if sid is None:
            return instance.handshake()
        if method == b"GET":
            return instance.unacknowledged.pop(sid, TOKEN)
        if body.startswith(b"40"):
            instance.unacknowledged[sid] = instance.connect(body)
        return b"OK"

    def _has_session(self, target: bytes) -> bool:
        """Whether the session that a target names lives here."""
        match = SESSION.search(target)
        return match is not None and self.instance.homes.get(match[1]) is self.instance

    def _locate(self, target: bytes) -> None:
        """Chainlit's answers for a file that is not there: 404 where the session is, 401 elsewhere."""
        if self._has_session(target):
            self._answer(b"404 Not Found", b'{"detail":"File not found"}')
        else:
            self._answer(b"401 Unauthorized", b'{"detail":"Unauthorized"}')

    def _answer(self, status: bytes, body: bytes, extra: bytes = b"", size: int = 0) -> None:
        """An answer with a body, or with a file of `size` bytes."""
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
            b"content-type: text/plain; charset=UTF-8\r\n"
            + extra
            + b"content-length: "
            + b"%d" % (size or len(body))
            + b"\r\n\r\n"
            + body
        )
        self.download = size
        self._send_file()

    def _upgrade(self, head: bytes, sid: bytes | None) -> None:
        match = KEY.search(head)
        if match is None:
            self._answer(b"400 Bad Request", b"no key")
            return
        accept = base64.b64encode(hashlib.sha1(match[1] + GUID, usedforsecurity=False).digest())
        self.websocket = True
        answer = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.transport.write(answer if sid else answer + frame(self.instance.handshake()))

    def _frame(self, payload: bytes) -> None:
        if payload == b"2probe":
            self.transport.write(frame(b"3probe"))
        elif payload.startswith(b"40"):
            self.transport.write(frame(self.instance.connect(payload)))
        elif payload.startswith(b'42["stream"'):
            self._stream(json.loads(payload[2:])[1])
        elif payload.startswith(b"42"):
            self.transport.write(frame(payload))

    def _stream(self, order: dict[str, float]) -> None:
        """Starts `count` frames: one each `every` seconds after a `delay`, or one each turn of the loop."""
        loop = asyncio.get_running_loop()
        self.owed = int(order["count"])
        if order["every"]:
            due = loop.time() + order["delay"]
            loop.call_at(due, self._drip, loop, order["every"], due)
        else:
            self._pour(loop)

    def _pour(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sends one frame by a write of its own in each turn of the loop."""
        if not self.owed:
            return
        if not self.paused:
            self.owed -= 1
            self.transport.write(TOKEN_FRAME)
        loop.call_soon(self._pour, loop)

    def _drip(self, loop: asyncio.AbstractEventLoop, every: float, due: float) -> None:
        """Sends one frame at each multiple of `every` seconds after `due`."""
        if not self.owed:
            return
        self.owed -= 1
        self.transport.write(TOKEN_FRAME)
        loop.call_at(due + every, self._drip, loop, every, due + every)


async def serve(count: int) -> None:
    """Listens on `count` free ports until standard input is closed."""
    loop = asyncio.get_running_loop()
    ports = []
    homes: dict[bytes, Instance] = {}
    for _ in range(count):
        instance = Instance(homes)
        server = await loop.create_server(lambda instance=instance: Connection(instance), "127.0.0.1", 0)  # type: ignore[misc]
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(int(sys.argv[1])))
