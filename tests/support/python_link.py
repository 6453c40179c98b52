"""The link over python-socketio, with every socket and every exchange of aiohttp in view."""

import asyncio
import contextlib
import socket
import ssl
import time
import uuid
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import engineio
import engineio.payload
import socketio
from aiohttp.abc import AbstractCookieJar

from tests.support.link import (
    REQUEST_TIMEOUT,
    SOCKET_PATH,
    Answer,
    Browser,
    Event,
    Exchange,
    Kind,
    Link,
    Request,
)
from tests.support.vanishing import vanish

# The library refuses a polling answer of more than 16 packets; browsers do not.
engineio.payload.Payload.max_decode_packets = 10_000
# The library waits 1 s for the answer to its CONNECT; a loaded machine may need longer. The page waits 20 s.
CONNECT_TIMEOUT = 20
CLOSE_TIMEOUT = 2
AGAIN = 0.3  # seconds
TURNS = 2  # of the loop, until it has read what has come


class PatientEngine(engineio.AsyncClient):  # type: ignore[misc]
    """The library's engine, which also survives a connection that breaks between a poll's head and body.

    Its own would end its reading there without a word, and nobody would ever connect again. After a poll that
    was refused it tells its writing to end; where something was to be written, that is not heard, and half a
    minute passes. So it is told once more. After a POST that was refused it says nothing more and reads on, a
    whole poll long; the page's library ends both, and so does this one.
    """

    _poll: asyncio.Task[Any] | None = None  # the newest

    async def _send_request(self, *args: Any, **options: Any) -> Any:
        request = asyncio.create_task(self._exchange(*args, **options))
        is_poll = args[0] == "GET"
        if is_poll:
            self._poll = request
        try:
            response = await request
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            response = "a message was refused meanwhile"
        if isinstance(response, aiohttp.ClientResponse) and response.status < 300:
            return response
        if is_poll:
            asyncio.get_running_loop().call_later(AGAIN, self._end_writing, self.write_loop_task)
        elif self._poll is not None:
            self._poll.cancel()
        return response

    async def _exchange(self, *args: Any, **options: Any) -> Any:
        response = await super()._send_request(*args, **options)
        if isinstance(response, aiohttp.ClientResponse):
            try:
                await response.read()  # it is kept for whoever reads it next
            except (TimeoutError, OSError, aiohttp.ClientError) as error:
                return repr(error)
        return response

    def _end_writing(self, writing: object) -> None:
        if writing is not None and writing is self.write_loop_task:
            self.queue.put_nowait(None)


class PatientClient(socketio.AsyncClient):  # type: ignore[misc]
    """The library's client with the page's patience, and one that survives a close frame before OPEN."""

    def _engineio_client_class(self) -> type[engineio.AsyncClient]:
        return PatientEngine

    async def connect(self, *args: Any, **options: Any) -> None:
        """Connects; every failure is one that the library's own reconnection knows."""
        try:
            await super().connect(*args, **{"wait_timeout": CONNECT_TIMEOUT} | options)
        except (TimeoutError, TypeError, OSError, aiohttp.ClientError) as error:
            raise socketio.exceptions.ConnectionError(repr(error)) from error


class OpenConnector(aiohttp.TCPConnector):
    """A connector whose connections can be broken from outside.

    aiohttp repeats a GET whose kept-alive connection broke, and the loss would go unnoticed; so no new
    connection is made either until the library has seen the loss.
    """

    def __init__(self, trusts: ssl.SSLContext | None) -> None:
        super().__init__(ssl=trusts or True)
        self.broken = False
        self._transports: list[asyncio.Transport] = []
        # Kept, because the library forgets a broken websocket without closing it, which is a warning.
        self._connections: list[aiohttp.connector.Connection] = []

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        """Connects or takes an idle connection, and remembers it."""
        if self.broken:
            raise aiohttp.ServerDisconnectedError("cut by the test")
        connection = await super().connect(*args, **options)
        self._transports = [known for known in self._transports if not known.is_closing()]
        self._connections = [known for known in self._connections if not known.closed]
        self._connections.append(connection)
        if connection.transport and connection.transport not in self._transports:
            self._transports.append(connection.transport)
        return connection

    @property
    def open(self) -> list[asyncio.Transport]:
        """Its connections."""
        return [transport for transport in self._transports if not transport.is_closing()]

    def cut(self) -> None:
        """Closes every connection at once, whatever is under way on it."""
        for transport in self._transports:
            transport.abort()
        # Not before whoever reads from one has heard of its loss: closed by us, a response between its head
        # and its end would be waited for without end.
        asyncio.get_running_loop().call_soon(_close, self._connections)
        self._transports = []
        self._connections = []


def _close(connections: list[aiohttp.connector.Connection]) -> None:
    for connection in connections:
        connection.close()


class PythonLink(Link):
    """One python-socketio client."""

    def __init__(
        self, url: str, kind: Kind, browser: Browser, delay: float, trusts: ssl.SSLContext | None = None
    ) -> None:
        """`trusts` is for a URL of https."""
        super().__init__(url, kind, browser, delay)
        self._opening: asyncio.Task[None] | None = None
        self._connector = OpenConnector(trusts)
        self._http = aiohttp.ClientSession(
            connector=self._connector, cookie_jar=self._jar(), trace_configs=[self._trace()]
        )
        self._sio = PatientClient(
            http_session=self._http,
            request_timeout=CONNECT_TIMEOUT,
            reconnection_delay=delay,
            randomization_factor=delay / 2,  # here an absolute number of seconds
            handle_sigint=False,
        )
        self._sio.on("connect", self._on_connect)
        self._sio.on("disconnect", self._on_disconnect)
        self._sio.on("connect_error", self._on_connect_error)
        self._sio.on("*", self._on_event)

    def _jar(self) -> AbstractCookieJar:
        if not self.browser.cookies:
            return aiohttp.DummyCookieJar()
        if self.browser.jar is None:
            self.browser.jar = aiohttp.CookieJar(unsafe=True)  # "unsafe": cookies for an address, not a name
        return self.browser.jar

    def _trace(self) -> aiohttp.TraceConfig:
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._on_request_end)
        trace.on_request_exception.append(self._on_request_exception)
        return trace

    async def _on_request_end(
        self, _: aiohttp.ClientSession, __: SimpleNamespace, done: aiohttp.TraceRequestEndParams
    ) -> None:
        status, body = done.response.status, ""
        if status >= 400:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                body = await done.response.text()
        self.exchanges.append(Exchange(time.time(), done.method, done.url.path_qs, status, body))

    async def _on_request_exception(
        self, _: aiohttp.ClientSession, __: SimpleNamespace, failed: aiohttp.TraceRequestExceptionParams
    ) -> None:
        error = repr(failed.exception)
        self.exchanges.append(Exchange(time.time(), failed.method, failed.url.path_qs, 0, error))

    def _report(self, name: str, data: Any = None) -> None:
        self.listener(Event(time.time(), name, data))

    async def _on_connect(self) -> None:
        self._report("connect", self._sio.transport())

    async def _on_disconnect(self, reason: str) -> None:
        self._connector.broken = False
        self._report("disconnect", reason)

    async def _on_connect_error(self, data: Any = None) -> None:
        self._report("connect_error", data)

    async def _on_event(self, event: str, *data: Any) -> Any:
        self._report(event, data[0] if data else None)
        return reply_to_ask() if event == "ask" else None

    async def open(self, auth: dict[str, Any]) -> None:
        """Connects in the background, and tries again until it works."""
        self._opening = asyncio.create_task(
            self._sio.connect(
                self.url,
                auth=auth,
                transports=list(self.kind.transports.value),
                socketio_path=urlsplit(self.url).path + SOCKET_PATH,  # a url may end in a root path
                retry=True,
            )
        )
        self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def emit(self, event: str, data: Any = None) -> None:
        """Sends an event; lost while the connection is down."""
        with contextlib.suppress(socketio.exceptions.BadNamespaceError):
            await self._sio.emit(event, data)

    async def request(self, request: Request) -> Answer:
        """Makes an HTTP request."""
        form = None
        if request.upload:
            form = aiohttp.FormData()
            form.add_field(
                "file", request.upload.content, filename=request.upload.name, content_type="text/plain"
            )
        try:
            async with self._http.request(
                request.method,
                self.url + request.path,
                json=request.json,
                data=form,
                headers=request.headers,
                timeout=aiohttp.ClientTimeout(REQUEST_TIMEOUT),
            ) as response:
                return Answer(response.status, await response.text())
        except (TimeoutError, aiohttp.ClientError) as error:
            return Answer(0, repr(error))

    def log_in(self, name: str) -> None:
        """From now on it names this user, as a front does that has asked for a login."""
        self._http.headers["x-user"] = name

    async def cut(self) -> None:
        """Breaks all connections under the library."""
        for _ in range(TURNS):  # what has come by now was heard, though this process was late to read it
            await asyncio.sleep(0)
        # The library says that it is connected a moment after it has told so.
        self._connector.broken = bool(self._sio.connected or self._sio.namespaces)
        self._connector.cut()

    def vanish(self) -> list[socket.socket]:
        """Nothing reaches it any more, nobody is told; while these sockets are open, of its end neither."""
        return [vanish(transport.get_extra_info("socket").fileno()) for transport in self._connector.open]

    async def abandon(self) -> None:
        """Breaks all connections, and the library does not come back."""
        self._sio.reconnection = False
        await self.cut()

    async def close(self) -> None:
        """Says goodbye if that is quick, then lets go."""
        if self._opening:
            self._opening.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._sio.shutdown(), CLOSE_TIMEOUT)
        self._sio.reconnection = False
        self._connector.cut()
        await self._http.close()


def reply_to_ask() -> dict[str, str]:
    """What the page answers when the app asks back: a message of the user."""
    return {
        "id": str(uuid.uuid4()),
        "name": "user",
        "type": "user_message",
        "output": "yes",
        "createdAt": "2026-01-01T00:00:00Z",
    }
