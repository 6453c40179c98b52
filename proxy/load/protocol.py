"""One connection to Chainlit as its page has it: Engine.IO 4 and Socket.IO over aiohttp, and no more.

The library for Python costs several times as much, which would bound what one generator can do. A token is
not parsed: that it came is all that counts. A `Line` is for one connection; whoever lost one makes another.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import aiohttp

SOCKET_PATH = "/ws/socket.io/"
_BETWEEN = "\x1e"  # of two packets in one payload
_STREAMED = '42["stream_token"'
_OPENING = 20.0  # seconds: after so many Socket.IO's client gives a connection up
_REQUEST = aiohttp.ClientTimeout(total=_OPENING)
_POLL = aiohttp.ClientTimeout(
    total=90.0
)  # a poll is answered at the next ping, after 25 s, by a healthy server

_NOT_ITS_OWN = (
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
)  # what an answer that nobody thought of raises

Heard = Callable[[str, list[Any], str], None]
"""(event, its arguments, the packet that acknowledges it: "" if none is wanted). Tokens have no arguments."""


class Transport(StrEnum):
    """How a client connects."""

    PAGE = "page"  # polling, then a websocket, as Chainlit's page does it
    WEBSOCKET = "websocket"  # at once
    POLLING = "polling"  # for ever, as behind a firewall that lets no websocket through


class LineError(Exception):
    """It could not be connected, or was lost; the text is a kind of error, to be counted by."""


class Line:
    """One connection. Made by a user; `open`, then `listen` until it raises."""

    def __init__(self, http: aiohttp.ClientSession, url: str, transport: Transport, heard: Heard) -> None:
        """`url` is that of the app, with its root path and without a slash at the end."""
        self._http, self._transport, self._heard = http, transport, heard
        self._socket_url = url + SOCKET_PATH
        self._query = {"EIO": "4", "transport": "polling"}
        self._websocket: aiohttp.ClientWebSocketResponse | None = None

    async def open(self, auth: dict[str, Any]) -> None:
        """Connect to Chainlit's namespace. Raises LineError."""
        try:
            async with asyncio.timeout(_OPENING):
                await self._open("40" + json.dumps(auth))
        except TimeoutError:
            raise LineError(f"not connected within {_OPENING:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise LineError(_kind(error)) from None
        except _NOT_ITS_OWN:
            raise LineError("an answer is not Engine.IO's") from None

    async def _open(self, connect: str) -> None:
        if self._transport is Transport.WEBSOCKET:
            self._query["transport"] = "websocket"
            self._websocket = await self._upgrade()
            await _frame(self._websocket)  # OPEN
            await self._websocket.send_str(connect)
            self._connected(await _frame(self._websocket))
            return
        opened = await self._get()
        if not opened or not opened[0].startswith("0"):
            raise LineError("the answer to the handshake is not Engine.IO's")
        self._query["sid"] = json.loads(opened[0][1:])["sid"]
        await self.send(connect)
        first, *more = await self._get()
        self._connected(first)
        for packet in more:
            await self._take(packet)
        if self._transport is Transport.PAGE:
            websocket = await self._upgrade("websocket")
            await websocket.send_str("2probe")
            if (answer := await _frame(websocket)) != "3probe":
                raise LineError(f"the upgrade was answered with {answer[:20]!r}")
            await websocket.send_str("5")
            self._websocket = websocket

    def _connected(self, packet: str) -> None:
        if packet.startswith("44"):
            raise LineError(f"refused: {packet[2:80]!r}")
        if not packet.startswith("40"):
            raise LineError(f"CONNECT was answered with {packet[:20]!r}")

    async def _upgrade(self, transport: str = "") -> aiohttp.ClientWebSocketResponse:
        query = self._query | ({"transport": transport} if transport else {})
        return await self._http.ws_connect(self._socket_url, params=query, max_msg_size=0, autoping=True)

    async def listen(self) -> None:
        """Take what comes until the line is lost. Raises LineError."""
        try:
            while True:
                if self._websocket is None:
                    for packet in await self._get():
                        await self._take(packet)
                    continue
                message = await self._websocket.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    await self._take(message.data)
                elif message.type is not aiohttp.WSMsgType.BINARY:
                    raise LineError(f"websocket closed ({self._websocket.close_code})")
        except TimeoutError:
            raise LineError("no ping for 90 s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise LineError(_kind(error)) from None
        except _NOT_ITS_OWN:
            raise LineError("a packet is not Socket.IO's") from None

    async def _take(self, packet: str) -> None:
        if packet.startswith(_STREAMED):
            self._heard("stream_token", [], "")
        elif packet.startswith("42"):
            text = packet[2:]
            number = text[: text.index("[")]
            event, *arguments = json.loads(text[len(number) :])
            self._heard(event, arguments, f"43{number}" if number else "")
        elif packet == "2":
            await self.send("3")
        elif packet.startswith(("1", "41")):
            raise LineError("closed by the server")

    async def emit(self, event: str, *arguments: Any) -> None:
        """Say something. Raises LineError."""
        await self.send("42" + json.dumps([event, *arguments]))

    async def send(self, packet: str) -> None:
        """Send a packet. Raises LineError."""
        try:
            if self._websocket is not None:
                await self._websocket.send_str(packet)
                return
            headers = {"Content-Type": "text/plain;charset=UTF-8"}
            async with self._http.post(
                self._socket_url,
                params=self._query,
                data=packet,
                headers=headers,
                timeout=_REQUEST,
                allow_redirects=False,
            ) as answer:
                await answer.read()
                if answer.status != 200:
                    raise LineError(f"{answer.status} to a message")
        except TimeoutError:
            raise LineError("a message was not taken in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise LineError(_kind(error)) from None

    async def _get(self) -> list[str]:
        async with self._http.get(
            self._socket_url, params=self._query, timeout=_POLL, allow_redirects=False
        ) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise LineError(f"{answer.status} to a {'poll' if 'sid' in self._query else 'handshake'}")
            return text.split(_BETWEEN)

    async def close(self) -> None:
        """Say goodbye, if that is quick."""
        with contextlib.suppress(LineError, aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self.send("41")
                if self._websocket is not None:
                    await self._websocket.close()


def staying() -> aiohttp.TraceConfig:
    """Has a redirected websocket end, too, where requests say so: what is sent with each is for one host."""

    async def redirected(_http: object, _context: object, met: aiohttp.TraceRequestRedirectParams) -> None:
        met.response.close()
        raise aiohttp.WSServerHandshakeError(met.response.request_info, (), status=met.response.status)

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(redirected)
    return tracing


async def _frame(websocket: aiohttp.ClientWebSocketResponse) -> str:
    message = await websocket.receive()
    if message.type is not aiohttp.WSMsgType.TEXT:
        raise LineError(f"websocket closed ({websocket.close_code})")
    return str(message.data)


def _kind(error: Exception) -> str:
    """One of few words for an error: what is counted has no addresses in it."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"{error.status} to a websocket"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"not reached ({error.os_error.strerror or type(error).__name__})"
    return f"connection broke ({type(error).__name__})"
