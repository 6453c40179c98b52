"""A client that is handed over: the proxy opens a transport here in its name, and the client goes on.

The proxy joins a namespace of its own on that transport, before it says the client's CONNECT again. Then it
says `resume` in place of the page's `connection_successful`, and again what the instance before may not have
taken; it waits for each answer. An answer of `false` means that nothing was done, so that the client has to
connect anew. No order of events, and no content, does more than a client's own events could do: whoever
speaks here has connected to the session that it speaks for. Knows what belongs to which transport; what
becomes of a session is for `hooks`.

The polls of one client may come through several proxies. Then the one that hands it over joins *quietly*: it
hears what is said in its own namespace only. All that is for the client waits until it has left, and goes out
with the client's own polls, wherever these come from. What other proxies have heard their client say they say
again by an event of the session's own namespace.
"""

import asyncio
import itertools
import logging
import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

NAMESPACE = "/chainlit-proxy"
SAID_AGAIN = ("client_message", "edit_message")
AGAIN = "chainlit_proxy_said_again"  # an event in the namespace of sessions: the name of another, its payload
_LONGEST_ID = 64  # characters of a message's id; Chainlit's are UUIDs

log = logging.getLogger("chainlit_proxy.sessions")


class Sessions(Protocol):
    """What a hand-over needs of `hooks`; a socket is that of a session."""

    async def greet(self, socket: str, streaming: str | None) -> bool:
        """Says what a client is told that has come here, while a message of this id was streamed to it."""

    async def say_again(self, socket: str, event: str, payload: Any, *, begun: bool) -> bool | None:
        """Takes what the client has said, once.

        True: the answer is still to come from here; None: it has come; False: it cannot be taken here.
        `begun`: the instance before has taken it, whether or not that was recorded.
        """


@dataclass(eq=False, slots=True)
class Transport:
    """A transport that the proxy has opened for a client; made when it joins the namespace there."""

    engine: str  # its Engine.IO sid
    socket: str | None = None  # of the session, once its CONNECT was accepted
    resumed: bool = False
    quiet: "_Quiet | None" = None  # set when it joined so
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # one event after the other


class _Quiet:
    """What is for a transport's client waits here, in order, until the proxy has left its namespace.

    A ping goes first then: the client counts from the last one, and that of this instance may come too late.
    """

    def __init__(self, server: Any, engine: str) -> None:
        from engineio import packet  # noqa: PLC0415 - only in a process of Chainlit

        self._held: list[Any] = [packet.Packet(packet.PING)]
        self._waits = (packet.PING, packet.MESSAGE)
        self._socket = server.eio.sockets[engine]
        self._send = self._socket.send
        self._socket.send = self._take

    async def _take(self, packet: Any) -> None:
        """As `send` of the transport (engineio/async_socket.py)."""
        data = packet.data
        is_ours = isinstance(data, str) and data[1:].startswith(NAMESPACE + ",")
        if packet.packet_type in self._waits and not is_ours:
            self._held.append(packet)
        else:
            await self._send(packet)

    def end(self) -> None:
        """Lets all of it out; it must not be overtaken, so nobody is waited for."""
        self._socket.send = self._send
        for packet in self._held:
            self._socket.queue.put_nowait(packet)


class HandOvers:
    """Made once for a process, by `hooks`."""

    def __init__(self, server: Any, sessions: Sessions) -> None:
        """`server` is Chainlit's Socket.IO server."""
        self._server, self._sessions = server, sessions
        self._joined: dict[str, Transport] = {}  # by socket in our namespace
        self._connecting: dict[str, Transport] = {}  # by Engine.IO sid, until a session is accepted
        self._accepted: set[str] = set()  # sockets of sessions

    def __repr__(self) -> str:
        return f"<HandOvers {len(self._joined)} under way, {len(self._accepted)} done>"

    def install(self) -> None:
        """Registers the handlers of the namespace."""
        ours: dict[str, Any] = {
            "connect": self._connect,
            "disconnect": self._disconnect,
            "resume": self._resume,
        }
        ours |= {event: partial(self._said_again, event) for event in SAID_AGAIN}
        for event, handler in ours.items():
            self._server.on(event, handler, namespace=NAMESPACE)
        self._server.on(AGAIN, self._again)

    def of(self, socket: str) -> Transport | None:
        """What a session's socket connects on, if that is handed over."""
        if not self._connecting:
            return None
        return self._connecting.get(self._server.manager.eio_sid_from_sid(socket, "/"))

    def accept(self, transport: Transport, socket: str) -> None:
        """The session goes on here, by this socket."""
        transport.socket = socket
        self._connecting.pop(transport.engine, None)
        self._accepted.add(socket)
        self._begin_acks(socket)

    def is_greeted(self, socket: str) -> bool:
        """Whether the proxy greets it: its page, which has heard of a new connection, does so once more."""
        return socket in self._accepted

    def left(self, socket: str) -> None:
        """A session's socket has ended."""
        self._accepted.discard(socket)

    def _begin_acks(self, socket: str) -> None:
        """Numbers questions to the client from anywhere.

        A late answer to a question of the instance before is not one to a question of this one then.
        """
        try:
            manager = self._server.manager
            first = manager._generate_ack_id(socket, None)  # noqa: SLF001 - makes what is changed here
            numbers = manager.callbacks[socket]
            del numbers[first]
            if isinstance(numbers[0], itertools.count):
                numbers[0] = itertools.count(random.getrandbits(30) + 1)
        except Exception:  # another python-socketio: it numbers them as it does
            log.debug("questions are numbered from the start", exc_info=True)

    async def _connect(self, socket: str, _environ: Any = None, told: Any = None, *_: Any) -> None:
        """The proxy joins; only on a transport on which no session is, nor connects."""
        manager = self._server.manager
        engine = manager.eio_sid_from_sid(socket, NAMESPACE)
        if engine is None or manager.sid_from_eio_sid(engine, "/") is not None:
            raise ConnectionRefusedError("the transport has a session")
        self._joined[socket] = self._connecting[engine] = transport = Transport(engine)
        if isinstance(told, dict) and told.get("quiet") is True:
            transport.quiet = _Quiet(self._server, engine)

    async def _disconnect(self, socket: str, *_: Any) -> None:
        if transport := self._joined.pop(socket, None):
            self._connecting.pop(transport.engine, None)
            if transport.quiet is not None:
                transport.quiet.end()

    async def _resume(self, socket: str, told: Any = None, *_: Any) -> bool:
        """Greets, once; answers whether the client may go on."""
        transport = self._joined.get(socket)
        if transport is None or not isinstance(told, dict):
            return False
        async with transport.lock:
            if transport.socket is not None and not transport.resumed:
                streaming = told.get("streaming")
                streamed = streaming if _is_message_id(streaming) else None
                try:
                    transport.resumed = await self._sessions.greet(transport.socket, streamed)
                except Exception:
                    log.exception("a client that was handed over could not be greeted")
            return transport.resumed

    async def _said_again(self, event: str, socket: str, payload: Any = None, *more: Any) -> bool | None:
        """Answers as `say_again`, once that is done; `more` ends with true if it had begun."""
        transport = self._joined.get(socket)
        if transport is None or not _is_message(payload):
            return False
        async with transport.lock:
            if transport.socket is None or not transport.resumed:
                return False
            try:
                begun = more[-1:] == (True,)
                return await self._sessions.say_again(transport.socket, event, payload, begun=begun)
            except Exception:
                log.exception("what a client had said could not be said again")
                return False

    async def _again(self, socket: str, event: Any = None, payload: Any = None, *_: Any) -> None:
        """Takes it as that event, once; its client is acknowledged as by Chainlit."""
        if event in SAID_AGAIN and _is_message(payload):
            try:
                await self._sessions.say_again(socket, event, payload, begun=False)
            except Exception:
                log.exception("what a client had said could not be said again")


def _is_message_id(told: object) -> bool:
    return isinstance(told, str) and 0 < len(told) <= _LONGEST_ID


def _is_message(payload: Any) -> bool:
    """Whether Chainlit would find in it what it looks for first."""
    message = payload.get("message") if isinstance(payload, dict) else None
    return isinstance(message, dict) and _is_message_id(message.get("id"))
