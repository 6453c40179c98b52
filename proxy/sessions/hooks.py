"""The handlers that sharing registers with Chainlit's Socket.IO server.

Handlers of Socket.IO events are replaced by ones that call them; whatever fails in ours is logged, and
Chainlit's own part goes on. What is used of Chainlit is in `chat`.

A session that is taken over looks to Chainlit like one whose client came back: `on_chat_start` and
`on_chat_resume` do not run, because what they would set up is restored.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from .answers import Answers
from .chat import ChainlitChat, hang_up
from .ending import behind
from .hand_over import HandOvers
from .live import Connection
from .machine import Found
from .patience import within
from .sharing import Sharing
from .state import State, Unreadable
from .store import is_session_id
from .turns import Handler, Turns, guarded

log = logging.getLogger("chainlit_proxy.sessions")

CHANGING = ("chat_settings_change", "chat_settings_edit", "window_message", "stop")  # the state, perhaps
SOCKET = ("socket_id", "restored", "emit", "emit_call", "environ")  # what a connection sets of a session
PAGES = ("webapp", "copilot")  # clients that show what is streamed to them
GOODBYE = "client disconnect"  # why a client has gone that said so, or that is handed over by plan
ENDS = 0.25  # seconds that are waited for `on_chat_end` then: another instance waits for this one
RESTORES = 60.0  # seconds for a callback of `on_restore`: its session's next message waits for that


class _WatchedFiles(dict[str, Any]):
    """A session's list of files, which tells when one has been taken."""

    def __init__(self, files: dict[str, Any], told: Callable[[], None]) -> None:
        super().__init__(files)
        self._told = told

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._told()


class Hooks:
    """Made once for a process; a turn that was cut off is told by `notice`, and perhaps tried again."""

    def __init__(
        self,
        names: dict[str, Any],
        sharing: Sharing,
        notice: str,
        *,
        retry_turn: bool,
        answers: Answers | None = None,
    ) -> None:
        """With `answers` messages wait for their turn."""
        self._names, self._sharing = names, sharing
        self._turns = Turns(names, sharing, notice, retry_turn=retry_turn, answers=answers)
        self._chainlit: dict[str, Handler] = {}  # its own handlers
        self._connections: dict[str, Connection] = {}  # by socket id
        self._hand_overs = HandOvers(names["sio"], self)
        self.on_restore: list[Handler] = []

    def __repr__(self) -> str:
        return f"<Hooks {self._sharing!r}>"

    def install(self) -> None:
        """Puts our handlers before Chainlit's."""
        sio = self._names["sio"]
        self._chainlit = dict(sio.handlers["/"])
        ours: dict[str, Handler] = {
            "connect": self._connect,
            "connection_successful": self._connection_successful,
            "disconnect": self._disconnect,
        }
        ours |= {event: partial(self._changing, event) for event in CHANGING}
        ours |= self._turns.handlers(self._chainlit, self._before_message)
        for event, handler in ours.items():
            if event in self._chainlit:
                sio.on(event, handler)
        self._hand_overs.install()

    def _session(self, sid: str) -> Any:
        return self._names["WebsocketSession"].get(sid)

    async def _connect(self, sid: str, environ: Any, auth: Any) -> Any:
        names_one = isinstance(auth, dict) and "sessionId" in auth
        if names_one and not is_session_id(auth["sessionId"]):
            log.debug("a client was refused: malformed session id")
            raise ConnectionRefusedError("malformed session id")
        transport = self._hand_overs.of(sid)  # now: later the mapping may be gone
        before = self._names["WebsocketSession"].get_by_id(auth["sessionId"]) if names_one else None
        kept = {name: vars(before)[name] for name in SOCKET if name in vars(before)} if before else {}
        answer = await self._chainlit["connect"](sid, environ, auth)
        session = self._session(sid)
        if answer is not False and session is not None:
            goes_on = await guarded(self._take(sid, session, new=session is not before))
            if transport is not None and not goes_on:
                self._refuse(sid, session, kept)
            elif transport is not None:
                self._sharing.counts.hand_overs += 1
                self._hand_overs.accept(transport, sid)
            if transport is not None and kept:
                await guarded(self._hang_up(kept["socket_id"]))
            if transport is not None and not goes_on:
                raise ConnectionRefusedError("the session cannot go on here")
        return answer

    async def _hang_up(self, socket: str) -> None:
        """A session was handed over that is here by another socket: its client, if that is there, comes anew.

        It may have come by itself, while the proxy waited to hand over what it has left: what it says was
        heard by nobody. Two that are both handed over would do so for ever.
        """
        if not self._hand_overs.is_greeted(socket):
            await hang_up(self._names["sio"], socket)

    def _refuse(self, sid: str, session: Any, kept: dict[str, Any]) -> None:
        """Undoes a connection, so that the one that the client makes itself finds what there was."""
        self._sharing.counts.refused_hand_overs += 1
        log.info("a client was not handed over: its session is not stored, or cannot be restored")
        if connection := self._connections.pop(sid, None):
            connection.refuse()
        if session.socket_id != sid:
            return  # its client is here already
        if kept:
            session.restore(kept["socket_id"])
            vars(session).update(kept)
            return
        # Not by its own `delete`, which removes the files, perhaps those of another instance.
        self._names["ws_sessions_sid"].pop(sid, None)
        for made in (self._names["ws_sessions_id"], *self._kept_by_id()):
            made.pop(session.id, None)

    async def _take(self, sid: str, session: Any, *, new: bool) -> bool:
        """Restores the session if it was elsewhere; before the client may say anything.

        Returns whether it goes on where it was left.
        """
        chat = ChainlitChat(session, self._names)
        connection = self._connections[sid] = await self._sharing.connect(chat, new=new)
        goes_on = connection.goes_on
        if found := connection.found:
            chat.abandon()  # what an old copy here still does
            goes_on = found.state is not None and await self._restore(chat, found.state)
            if not goes_on:
                connection.discard()
                if not new:
                    self._forget(session)
        if not isinstance(session.files, _WatchedFiles):
            session.files = _WatchedFiles(session.files, partial(self._sharing.changed, session.id))
        self._turns.wrap_callbacks(self._names["config"].code)
        return goes_on

    def _kept_by_id(self) -> tuple[Any, ...]:
        return self._names["user_sessions"], self._names["chat_contexts"]

    def _forget(self, session: Any) -> None:
        """What is here is older than what cannot be restored: the chat begins anew."""
        session.restored = session.chat_started = session.has_first_interaction = False
        for kept in self._kept_by_id():
            kept.pop(session.id, None)

    async def _restore(self, chat: ChainlitChat, text: str) -> bool:
        try:
            state = State.from_text(text)
        except Unreadable as reason:
            log.warning("a session cannot be restored: %s", reason)
            return False
        await self._sharing.bring(chat.id, chat.expected(state))
        chat.restore(state)
        self._sharing.counts.restores += 1
        self._sharing.counts.dropped_values += len(state.dropped)
        return True

    async def _connection_successful(self, sid: str) -> None:
        if not self._hand_overs.is_greeted(sid):
            await self._hello(sid)

    async def say_again(self, socket: str, event: str, payload: Any, *, begun: bool) -> bool | None:
        """As `Sessions` in `hand_over`."""
        return await self._turns.say_again(socket, event, payload, begun=begun)

    async def greet(self, socket: str, streaming: str | None) -> bool:
        """As `Sessions` in `hand_over`."""
        session = self._session(socket)
        if session is None:
            return False
        if streaming is not None and session.client_type in PAGES:
            await guarded(self._end_streaming(socket, session, streaming))
        await self._hello(socket)
        return True

    async def _end_streaming(self, sid: str, session: Any, name: str) -> None:
        """What the page has of a message stays; its cursor goes, unless the answer goes on."""
        emitter = self._names["init_ws_context"](session).emitter
        messages = self._names["chat_contexts"].get(session.id, ())
        if whole := next((message for message in messages if message.id == name), None):
            await emitter.update_step(whole.to_dict())
        elif sid not in self._connections or not self._connections[sid].in_turn:
            await emitter.emit("update_message", {"id": name, "streaming": False})

    async def _hello(self, sid: str) -> None:
        session, connection = self._session(sid), self._connections.get(sid)
        found = await self._welcome(sid)
        if found is None or found.state is None:
            before = session and session.current_task
            await self._chainlit["connection_successful"](sid)
            if session is not None:
                if session.current_task is not before:  # on_chat_start: a state of its middle is of no use
                    turn = self._sharing.turn(session.id, greets=True)
                    await turn.begin()
                    session.current_task.add_done_callback(turn.end)
                self._sharing.changed(session.id)
            if connection is not None and found is not None:
                await self._tell(session, connection, found)

    async def _before_message(self, sid: str) -> None:
        session, connection = self._session(sid), self._connections.get(sid)
        found = await self._welcome(sid)
        if connection is not None and found is not None and found.state is None:
            await self._tell(session, connection, found)

    async def _welcome(self, sid: str) -> Found | None:
        """Greets a client whose session was restored, once: at its hello, or before what it says sooner.

        Returns what was found the first time.
        """
        session, connection = self._session(sid), self._connections.get(sid)
        if session is None or connection is None:
            return None
        async with connection.welcoming:
            found = connection.hello()
            if found is not None and found.state is not None:
                emitter = self._names["init_ws_context"](session).emitter
                await emitter.task_end()
                await emitter.clear("clear_ask")
                await emitter.clear("clear_call_fn")
                for callback in self.on_restore:
                    await guarded(_in_time(callback))
                await self._tell(session, connection, found)
                connection.survived()
            return found

    async def _tell(self, session: Any, connection: Connection, found: Found) -> None:
        """Says what is to be said of the turns that were found, to whatever socket its client has by then."""
        if found.turns:
            await guarded(self._turns.cut(session, found.turns, connection.told))
        connection.told()

    async def _changing(self, event: str, sid: str, *arguments: Any) -> Any:
        try:
            return await self._chainlit[event](sid, *arguments)
        finally:
            if (session := self._session(sid)) is not None:
                self._sharing.changed(session.id)

    async def _disconnect(self, sid: str, *reason: Any) -> None:
        session, connection = self._session(sid), self._connections.pop(sid, None)
        self._hand_overs.left(sid)
        over = session is not None and session.to_clear
        if session is not None and connection and await guarded(connection.leaving()) is False:
            # Another instance has it: nothing of this copy goes to the data layer, or stays in memory.
            session.has_first_interaction = False
            session.to_clear = True
        ends = self._end(sid, connection, over=over)
        if GOODBYE in reason:
            await behind(ends, ENDS)
        else:
            await ends

    async def _end(self, sid: str, connection: Connection | None, *, over: bool) -> None:
        """What Chainlit and the app do when a client has gone."""
        try:
            await self._chainlit["disconnect"](sid)
        finally:  # a data layer that fails keeps no session alive
            if connection:
                await guarded(connection.left(over=over))


async def _in_time(callback: Handler) -> None:
    """Runs a callback of `on_restore`, which may never return."""
    async with within(RESTORES):
        await callback()
