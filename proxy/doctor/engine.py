"""One connection of Engine.IO with Socket.IO on it, opened in the order of the page's own client.

That order is what libraries hide: after the handshake the page sends its CONNECT, a poll and the upgrade at
once (socket.io-client 4.8). Packets are coded by python-socketio; what they are carried by is in view here,
so that a refusal is evidence.

`echo` asks without effect: a CONNECT to a namespace that nobody has is refused at once, by every version of
Socket.IO.
"""

import asyncio
import contextlib
import json
import time
from enum import StrEnum
from itertools import count
from typing import Any

import aiohttp
from socketio import packet as socketio

from proxy.doctor.browser import SHOWN, SOCKET, Answer, Browser

PATIENCE = 10.0  # seconds for a CONNECT, and for what is asked on an open connection
_LONGEST_POLL = 60.0  # seconds; the server's ping ends one after 25
_MOST_EVENTS = 50_000  # that wait to be looked at: an answer has fewer tokens
_PAUSE = 0.02  # seconds
_SEPARATOR = "\x1e"  # Engine.IO protocol 4
_PING, _PONG, _MESSAGE, _UPGRADE, _NOOP, _CLOSE = "2", "3", "4", "5", "6", "1"


class Transport(StrEnum):
    """How a page connects; `BOTH` is what it does unless the app says otherwise."""

    POLLING = "polling"
    BOTH = "polling, then websocket"
    WEBSOCKET = "websocket"


class RefusedError(Exception):
    """The connection was refused, or has ended; its text is the evidence."""


class Engine:
    """Made and ended by a `Tab`."""

    def __init__(self, browser: Browser, transport: Transport) -> None:
        self.browser = browser
        self.transport = transport
        self.events: asyncio.Queue[tuple[float, str]] = asyncio.Queue(_MOST_EVENTS)  # when, name
        self.opened_at = 0.0
        self.ended = ""  # why it has; set once
        self.gone = asyncio.Event()  # set with it
        self.ended_at = 0.0
        self._sid = ""
        self._socket: aiohttp.ClientWebSocketResponse | None = None  # once it carries the packets
        self._poller: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._moved = False  # whether polls are over
        self._waiting: dict[str, asyncio.Future[float]] = {}  # by namespace
        self._names = count(1)

    def __repr__(self) -> str:
        return f"<Engine {self.transport} {self.ended or 'open'}>"

    async def connect(self, auth: dict[str, Any]) -> None:
        """Returns when the app has accepted; raises RefusedError."""
        told = "CONNECT"
        self._waiting["/"] = asyncio.get_running_loop().create_future()
        connect = "40" + json.dumps(auth)
        try:
            async with asyncio.timeout(PATIENCE):
                if self.transport is Transport.WEBSOCKET:
                    await self._open_websocket(connect)
                else:
                    await self._open_polling(connect)
                await self._waiting["/"]
        except TimeoutError:
            raise RefusedError(f"{told} over {self.transport}: no answer within {PATIENCE:g} s") from None
        finally:
            self._no_more_waiting("/")
        self.opened_at = time.monotonic()

    async def send(self, *packets: str) -> None:
        """Packets of Engine.IO; raises RefusedError."""
        if self.ended:
            raise RefusedError(self.ended)
        self.browser.site.sent_bytes += sum(map(len, packets))
        if self._socket is not None:
            try:
                for packet in packets:
                    await self._socket.send_str(packet)
            except (aiohttp.ClientError, OSError) as error:
                raise RefusedError(f"the websocket has ended: {error}") from error
            return
        told = f"{SOCKET}?transport=polling&sid=..."
        answer = await self.browser.ask(
            "POST", SOCKET, told=told, params=self._query("polling"), data=_SEPARATOR.join(packets)
        )
        if answer.status != 200:
            raise RefusedError(str(answer))

    async def emit(self, event: str, *data: Any) -> None:
        """An event of Socket.IO; raises RefusedError."""
        await self.send(_MESSAGE + str(socketio.Packet(socketio.EVENT, data=[event, *data]).encode()))

    async def echo(self) -> float:
        """Seconds until an answer to something without effect; raises RefusedError."""
        name = f"/doctor-{next(self._names)}"
        future = self._waiting[name] = asyncio.get_running_loop().create_future()
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.send(f"40{name},")
                took: float = await future - begun
                return took
        except TimeoutError:
            raise RefusedError(f"a packet over {self.transport}: no answer within {PATIENCE:g} s") from None
        finally:
            self._no_more_waiting(name)

    def _no_more_waiting(self, name: str) -> None:
        future = self._waiting.pop(name)
        if future.done() and not future.cancelled():
            future.exception()  # told, or overtaken by a refusal of what was sent

    async def send_long(self, size: int) -> None:
        """An event of so many bytes to nobody, and an echo behind it; raises RefusedError."""
        packet = socketio.Packet(socketio.EVENT, data=["doctor", "x" * size], namespace="/doctor")
        await self.send(_MESSAGE + str(packet.encode()))
        await self.echo()

    async def drop(self) -> None:
        """End it without a word, as a lost network does; polls just stop."""
        self._end("dropped by the doctor")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await self._socket.close()

    def _query(self, transport: str) -> dict[str, str]:
        return {"EIO": "4", "transport": transport, **({"sid": self._sid} if self._sid else {})}

    def _start(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    async def _open_websocket(self, connect: str) -> None:
        socket = await self._upgrade()
        self._open(await self._frame(socket), "the first frame")
        self._start(self._read_frames(socket))
        self._socket = socket
        await self.send(connect)

    async def _open_polling(self, connect: str) -> None:
        told = f"{SOCKET}?transport=polling"
        answer = await self.browser.ask("GET", SOCKET, told=told, params=self._query("polling"))
        if answer.status != 200:
            raise RefusedError(str(answer))
        self._open(answer.body.decode(errors="replace"), str(answer))
        self._poller = self._start(self._poll())
        if self.transport is Transport.POLLING:
            await self.send(connect)
            return
        # At once, as the page does: the three may meet different instances.
        moving = self._start(self._move())
        await self.send(connect)
        await moving

    def _open(self, text: str, told: str) -> None:
        try:
            opened = json.loads(text.split(_SEPARATOR, maxsplit=1)[0].removeprefix("0"))
            self._sid = str(opened["sid"])
        except (ValueError, KeyError, TypeError):
            raise RefusedError(f"{told}: not a handshake of Engine.IO") from None

    async def _upgrade(self) -> aiohttp.ClientWebSocketResponse:
        told = f"{SOCKET}?transport=websocket{'&sid=...' if self._sid else ''}"
        socket = await self.browser.websocket(self._query("websocket"), told)
        if isinstance(socket, Answer):
            raise RefusedError(str(socket))
        return socket

    async def _move(self) -> None:
        """From polls to a websocket."""
        socket = await self._upgrade()
        try:
            await socket.send_str(_PING + "probe")
            if (said := await self._frame(socket)) != _PONG + "probe":
                raise RefusedError(
                    f"the upgrade to a websocket: {said[:40]!r} in place of the answer to its probe"
                )
            self._moved = True
            assert self._poller
            await self._poller  # the server ends the poll that is open
            await socket.send_str(_UPGRADE)
        except BaseException:
            await socket.close()
            raise
        self._start(self._read_frames(socket))
        self._socket = socket

    async def _frame(self, socket: aiohttp.ClientWebSocketResponse) -> str:
        message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise RefusedError(f"the websocket was closed at once, with {socket.close_code}")
        return str(message.data)

    async def _read_frames(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT and not await self._take(message.data):
                    break
            self._end(f"the websocket was closed, with {socket.close_code}")
        except (RefusedError, aiohttp.ClientError, OSError) as error:
            self._end(f"the websocket has ended: {error}")

    async def _poll(self) -> None:
        told = f"{SOCKET}?transport=polling&sid=..."
        while not self._moved:
            answer = await self.browser.ask(
                "GET", SOCKET, told=told, params=self._query("polling"), patience=_LONGEST_POLL
            )
            if answer.status != 200:
                self._end(str(answer))
                return
            for text in answer.body.decode(errors="replace").split(_SEPARATOR):
                try:
                    alive = await self._take(text)
                except RefusedError as error:
                    self._end(str(error))
                    return
                if not alive:
                    self._end(f"{answer.asked}: closed by the server")
                    return
            if answer.body == _NOOP.encode():  # while the upgrade is under way each poll is answered at once
                await asyncio.sleep(_PAUSE)

    async def _take(self, text: str) -> bool:
        """A packet of Engine.IO; False if it ends the connection."""
        if text[:1] == _PING:
            await self.send(_PONG)
        elif text[:1] == _MESSAGE:
            try:
                self._heard(text[1:])
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
                raise RefusedError("what came is no packet of Socket.IO") from None
        return text[:1] != _CLOSE

    def _heard(self, text: str) -> None:
        packet = socketio.Packet(encoded_packet=text)
        waiting = self._waiting.get(packet.namespace or "/")
        if packet.packet_type in {socketio.CONNECT, socketio.CONNECT_ERROR}:
            if waiting is None or waiting.done():
                return
            if packet.packet_type == socketio.CONNECT_ERROR and packet.namespace in {None, "/"}:
                waiting.set_exception(RefusedError(f"the app refused the CONNECT: {json.dumps(packet.data)}"))
            else:
                waiting.set_result(time.monotonic())
        elif packet.packet_type == socketio.EVENT and isinstance(packet.data, list) and packet.data:
            if not self.events.full():
                self.events.put_nowait((time.monotonic(), str(packet.data[0])[:SHOWN]))
        elif packet.packet_type == socketio.DISCONNECT:
            self._end("the app ended the connection")

    def _end(self, why: str) -> None:
        if self.ended:
            return
        self.ended, self.ended_at = why, time.monotonic()
        self.gone.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RefusedError(why))
