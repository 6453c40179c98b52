"""A stand-in for one Chainlit instance: `python -m tests.soak.chat NAME PORT`.

Two thousand sessions of real Chainlit do not fit a test machine, so this speaks just enough of Engine.IO:
handshake, polls that wait for news, the upgrade with its probe, and websockets from the start. A session
lives in the process that its CONNECT reached. What is said is repeated with the session and the instance; a
file is answered, and an upload checked, by a nonce. Every answer names the nonce of the request it is for.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import secrets
import sys
from asyncio import StreamReader, StreamWriter

import uvloop

from benchmarks.wire import frame
from tests.soak.wire import Message, read_frame, read_message

PATIENCE = 5.0  # seconds a poll waits for news
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
QUERY = re.compile(rb"[?&]([a-z_]+)=([^& ]*)")


class Transport:
    """One Engine.IO connection: what waits to be polled, and whose session it carries."""

    def __init__(self) -> None:
        self.packets: asyncio.Queue[bytes] = asyncio.Queue()
        self.session = b""


class Instance:
    """What the process remembers."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.transports: dict[bytes, Transport] = {}
        self.sessions: set[bytes] = set()

    def opened(self) -> tuple[bytes, Transport]:
        """A new Engine.IO session and its OPEN packet."""
        sid, transport = secrets.token_urlsafe(15), Transport()
        self.transports[sid.encode()] = transport
        options = {"sid": sid, "upgrades": ["websocket"], "pingTimeout": 20000, "pingInterval": 25000}
        return b"0" + json.dumps({**options, "maxPayload": 1000000}).encode(), transport

    def hear(self, transport: Transport, packet: bytes) -> bytes | None:
        """The answer to a client's packet, if there is one."""
        if packet.startswith(b"40"):
            transport.session = json.loads(packet[2:])["sessionId"].encode()
            self.sessions.add(transport.session)
            return b'40{"sid":"' + transport.session + b'"}'
        if packet.startswith(b"42"):
            return b'42["heard",%b,"%b","%b"]' % (packet[2:], transport.session, self.name)
        return b"3probe" if packet == b"2probe" else None

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection of the proxy."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await read_message(reader)
                query = dict(QUERY.findall(asked.target))
                if query.get(b"transport") == b"websocket":
                    await self._websocket(asked, query, reader, writer)
                    break
                await self._answer(asked, query, writer)
        writer.close()

    async def _answer(self, asked: Message, query: dict[bytes, bytes], writer: StreamWriter) -> None:
        session, nonce = query.get(b"session_id", b""), asked.get(b"x-nonce")
        if b"transport" in query:
            say(writer, asked, *await self._poll(asked, query.get(b"sid")))
        elif asked.target.startswith(b"/project/file/"):  # the proxy asks where a session lives
            detail = b"File not found" if session in self.sessions else b"Unauthorized"
            say(writer, asked, b"404" if session in self.sessions else b"401", b'{"detail":"%b"}' % detail)
        elif asked.target.startswith(b"/project/file"):
            whole = nonce * (len(asked.body) // len(nonce)) == asked.body
            say(writer, asked, b"200", (b"stored " if whole else b"mixed ") + nonce)
        elif asked.target.startswith(b"/public/"):
            body = nonce * int(query[b"times"])
            say(writer, asked, b"200", body, in_chunks=query[b"chunked"] == b"1")
        else:  # probes, and what announces a session
            say(writer, asked, b"200", b"ok")
        await writer.drain()

    async def _poll(self, asked: Message, sid: bytes | None) -> tuple[bytes, bytes]:
        if sid is None:
            return b"200", self.opened()[0]
        transport = self.transports.get(sid)
        if transport is None:
            return b"400", b'{"code":1,"message":"Session ID unknown"}'
        if asked.method == b"GET":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    return b"200", await transport.packets.get()
            return b"200", b"6"
        answer = self.hear(transport, asked.body)
        if answer is not None:
            transport.packets.put_nowait(answer)
        return b"200", b"ok"

    async def _websocket(
        self, asked: Message, query: dict[bytes, bytes], reader: StreamReader, writer: StreamWriter
    ) -> None:
        transport, opening = self.transports.get(query.get(b"sid", b"")), b""
        if b"sid" not in query:
            opened, transport = self.opened()
            opening = frame(opened)
        if transport is None:
            say(writer, asked, b"400", b"unknown sid")
            return
        accept = hashlib.sha1(asked.get(b"sec-websocket-key") + GUID, usedforsecurity=False).digest()
        writer.write(
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Nonce: %b\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n%b" % (asked.get(b"x-nonce"), base64.b64encode(accept), opening)
        )
        while (packet := await read_frame(reader)) is not None:
            if packet == b"5":
                transport.packets.put_nowait(b"6")  # whoever polls is told to stop
            answer = self.hear(transport, packet)
            if answer is not None:
                writer.write(frame(answer))
                await writer.drain()


def say(writer: StreamWriter, asked: Message, status: bytes, body: bytes, *, in_chunks: bool = False) -> None:
    """Answer a request."""
    framing = b"Content-Length: %d\r\n" % len(body)
    if in_chunks:
        framing = b"Transfer-Encoding: chunked\r\n"
        parts = [body[at : at + 1000] for at in range(0, len(body), 1000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    nonce = asked.get(b"x-nonce")
    writer.write(b"HTTP/1.1 %b x\r\nX-Nonce: %b\r\n%b\r\n%b" % (status, nonce, framing, body))


async def main(name: str, port: int) -> None:
    """Serves until the process is ended."""
    instance = Instance(name)
    server = await asyncio.start_server(instance.serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
