"""Scripted Chainlit instances and tabs: Engine.IO and Socket.IO as far as affinity can see them.

A `Chat` answers handshakes, polls, POSTs, websockets and the locate question as Chainlit does, and keeps
what it was told. Any kind of answer can be held back with `hold`. A `Tab` is a client that says each of
its requests when the test wants it.
"""

import asyncio
import gzip
import json

from tests.dataplane import deflated
from tests.dataplane.frames import ACCEPT, Socket, upgrade
from tests.dataplane.peers import Message, Peer, get, ok, post
from tests.dataplane.scripted import Backend
from tests.dataplane.world import World

PATH = b"/ws/socket.io/?EIO=4&transport="
SEPARATOR = b"\x1e"


# What an instance answers that is asked for a file of a session (chainlit/server.py, get_file).
HOLDS = b'HTTP/1.1 404 Not Found\r\nContent-Length: 27\r\n\r\n{"detail":"File not found"}'
THEIRS = b'{"detail":"You are not authorized to download files from this session"}'
DENIES = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 25\r\n\r\n{"detail":"Unauthorized"}'


def connect_packet(session: str) -> bytes:
    """The CONNECT packet of Chainlit's page."""
    return b"40" + json.dumps({"clientType": "webapp", "sessionId": session}).encode()


class Transport:
    """One Engine.IO session at an instance."""

    def __init__(self, sid: bytes) -> None:
        self.sid = sid
        self.heard: list[bytes] = []  # Socket.IO packets
        self.quiet: list[bytes] = []  # transport talk on the websocket
        self.queue: list[bytes] = []  # what the next poll gets
        self.news = asyncio.Event()
        self.socket: Socket | None = None
        self.upgraded = False
        self.proxied = False  # whether the proxy itself speaks on it

    def push(self, packet: bytes) -> None:
        """Say something to the client."""
        if self.socket is not None and self.upgraded:
            self.socket.say(packet)
        else:
            self.queue.append(packet)
            self.news.set()


class Chat:
    """One instance."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name = backend.name.encode()
        self.sessions: set[str] = set()  # that it holds
        self.namespaces = {b"/admin,"}  # of its app's own
        self.refused: set[str] = set()  # sessions of other users
        self.transports: dict[bytes, Transport] = {}
        self.chunks = False  # whether handshakes are answered in chunks
        self.packed = False  # whether polls are answered compressed
        self.packing = b"gzip"  # what that is called
        self.cut = 0  # bytes of an answer to a poll that come in a second piece
        self._gates: dict[str, asyncio.Event] = {}
        backend.serve(self._answer)

    def hold(self, kind: str) -> asyncio.Event:
        """Do not answer this kind of request until the event is set."""
        return self._gates.setdefault(kind, asyncio.Event())

    @property
    def heard(self) -> list[bytes]:
        """All Socket.IO packets."""
        return [packet for transport in self.transports.values() for packet in transport.heard]

    def asked(self, kind: str) -> list[Message]:
        """The requests of a kind that came."""
        return [request for request in self.backend.requests if self.kind(request) == kind]

    def kind(self, request: Message) -> str:
        """What a request is."""
        if b"/project/file/" in request.target:
            return "locate"
        if b"transport=websocket" in request.target:
            return "upgrade"
        if request.start.startswith(b"POST"):
            return "post"
        return "poll" if b"sid=" in request.target else "handshake"

    async def _answer(self, peer: Peer, request: Message) -> None:
        kind = self.kind(request)
        if kind in self._gates:
            await self._gates[kind].wait()
        if kind == "locate":
            session = request.target.rpartition(b"session_id=")[2].decode()
            theirs = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(THEIRS), THEIRS)
            answer = theirs if session in self.refused else HOLDS if session in self.sessions else DENIES
            peer.say(answer)
            return
        sid = request.target.rpartition(b"sid=")[2] if b"sid=" in request.target else None
        transport = self._mint() if sid is None else self.transports.get(sid)
        if transport is None:
            peer.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\nInvalid session")
        elif kind == "upgrade":
            await self._talk(peer, transport, fresh=sid is None)
        elif kind == "handshake":
            self._open(peer, transport)
        elif kind == "post":
            for packet in request.body.split(SEPARATOR):
                if packet[:1] == b"4":
                    await self._take(transport, packet)
            peer.say(ok(b"ok"))
        else:
            await transport.news.wait()
            transport.news.clear()
            packets, transport.queue = transport.queue, []
            body = SEPARATOR.join(packets)
            encoding = b"Content-Encoding: " + self.packing
            answer = ok(gzip.compress(body), encoding) if self.packed else ok(body)
            peer.say(answer[: len(answer) - self.cut])
            await asyncio.sleep(0.01 if self.cut else 0)
            peer.say(answer[len(answer) - self.cut :])

    def _mint(self) -> Transport:
        sid = self.name + b"-sid-%d" % len(self.transports)
        return self.transports.setdefault(sid, Transport(sid))

    def _opened(self, transport: Transport) -> bytes:
        return b'0{"sid":"%b","upgrades":["websocket"],"pingInterval":25000}' % transport.sid

    def _open(self, peer: Peer, transport: Transport) -> None:
        body = self._opened(transport)
        if not self.chunks:
            peer.say(ok(body, b"Set-Cookie: io=x"))
            return
        peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 7):
            part = body[at : at + 7]
            peer.say(b"%x\r\n%b\r\n" % (len(part), part))
        peer.say(b"0\r\n\r\n")

    async def _talk(self, peer: Peer, transport: Transport, *, fresh: bool) -> None:
        socket = transport.socket = Socket(peer, client=False)
        transport.upgraded = fresh
        peer.say(ACCEPT)
        if fresh:
            socket.say(self._opened(transport))
        while True:
            packet = await socket.hear()
            if packet[:1] == b"4":
                gate = self._gates.get("connect")
                if packet[:2] == b"40" and gate is not None and not gate.is_set():
                    transport.heard.append(packet)  # and is not answered, unless the test does it
                    continue
                await self._take(transport, packet)
                continue
            transport.quiet.append(packet)
            if packet == b"2probe":
                socket.say(b"3probe")
                transport.push(b"6")
            elif packet == b"5" and not transport.upgraded:
                transport.upgraded = True
            elif packet == b"5":
                await self._take(transport, packet)

    async def _take(self, transport: Transport, packet: bytes) -> None:
        """A packet on a websocket that is for more than its transport."""
        if packet[:1] == b"4":
            self._hear(transport, packet)

    def _hear(self, transport: Transport, packet: bytes) -> None:
        transport.heard.append(packet)
        namespace = packet[2 : packet.find(b",") + 1] if packet[2:3] == b"/" else b""
        if namespace and namespace not in self.namespaces:
            transport.push(b'44%b{"message":"Unable to connect"}' % namespace)
        elif namespace and packet.startswith(b"40"):
            transport.push(b'40%b{"sid":"%b"}' % (namespace, self.name))
        elif namespace:
            transport.push(b'42%b["echo","%b"]' % (namespace, self.name))
        elif packet.startswith(b"40"):
            if b"sessionId" in packet:
                session = json.loads(packet[2:])["sessionId"]
                if session in self.refused:
                    transport.push(b'44{"message":"authorization failed"}')
                    return
                self.sessions.add(session)
            transport.push(b'40{"sid":"%b"}' % self.name)
        else:
            transport.push(b'42["echo","%b"]' % self.name)


class Tab:
    """A client that has a polling transport, or opens a websocket."""

    def __init__(self, world: World, *fields: bytes) -> None:
        self.world = world
        self.fields = fields
        self.path = PATH
        self.sid = b""
        self.got: list[bytes] = []  # by polls

    async def handshake(self) -> bytes:
        """Open a polling transport; its sid."""
        answer = await self.world.ask(get(self.path + b"polling", *self.fields))
        assert answer.status == 200, answer
        self.sid = json.loads(answer.body[1:])["sid"].encode()
        return self.sid

    async def poll(self) -> Peer:
        """Ask for packets; the answer is not awaited."""
        return (await self.world.client()).say(get(self.path + b"polling&sid=" + self.sid, *self.fields))

    async def post(self, *packets: bytes) -> Peer:
        """Send packets; the answer is not awaited."""
        body = SEPARATOR.join(packets)
        return (await self.world.client()).say(
            post(self.path + b"polling&sid=" + self.sid, body, *self.fields)
        )

    async def upgrade(self) -> Peer:
        """Ask for a websocket, for this transport if there is one; the answer is not awaited."""
        sid = b"&sid=" + self.sid if self.sid else b""
        return (await self.world.client()).say(upgrade(self.path + b"websocket" + sid, *self.fields))

    async def socket(self, peer: Peer | None = None) -> Socket:
        """The websocket that was asked for."""
        peer = peer or await self.upgrade()
        answer = await peer.response()
        assert answer.status == 101
        if answer.all(b"sec-websocket-extensions"):
            return deflated.Socket(peer)
        return Socket(peer, client=True)

    async def listen(self, wanted: bytes, poll: Peer | None = None) -> None:
        """Poll until this packet came."""
        while wanted not in self.got:
            answer = await (poll or await self.poll()).response()
            assert answer.status == 200, answer
            self.got += answer.body.split(SEPARATOR)
            poll = None


def chats(world: World) -> dict[str, Chat]:
    """A scripted instance behind every backend."""
    return {backend.name: Chat(backend) for backend in world.backends}
