"""The handlers that sharing registers with Chainlit's Socket.IO server.

Handlers of Socket.IO events are replaced by ones that call them; whatever fails in ours is logged, and
Chainlit's own part goes on. What is used of Chainlit is in `chat`.

A session that is taken over looks to Chainlit like one whose client came back: `on_chat_start` and
`on_chat_resume` do not run, because what they would set up is restored.
"""

import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any

from .chat import ChainlitChat
from .live import Connection, Running
from .machine import Found
from .sharing import Sharing
from .state import State, Unreadable
from .store import is_session_id

log = logging.getLogger("chainlit_proxy.sessions")

CHANGING = ("chat_settings_change", "chat_settings_edit", "window_message", "stop")  # the state, perhaps
TURNS = ("edit_message", "audio_end")  # their handlers return when the turn has ended

# What an app's callback is a part of; set in the task of the event, so it is in those that Chainlit makes.
_turn: ContextVar[Running | None] = ContextVar("turn", default=None)

Handler = Callable[..., Coroutine[Any, Any, Any]]


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

    def __init__(self, names: dict[str, Any], sharing: Sharing, notice: str, *, retry_turn: bool) -> None:
        self._names, self._sharing, self._notice, self._retry_turn = names, sharing, notice, retry_turn
        self._chainlit: dict[str, Handler] = {}  # its own handlers
        self._connections: dict[str, Connection] = {}  # by socket id
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
            "client_message": self._client_message,
            "disconnect": self._disconnect,
        }
        ours |= {event: partial(self._changing, event) for event in CHANGING}
        ours |= {event: partial(self._whole_turn, event) for event in TURNS}
        for event, handler in ours.items():
            if event in self._chainlit:
                sio.on(event, handler)

    def _session(self, sid: str) -> Any:
        return self._names["WebsocketSession"].get(sid)

    async def _connect(self, sid: str, environ: Any, auth: Any) -> Any:
        names_one = isinstance(auth, dict) and "sessionId" in auth
        if names_one and not is_session_id(auth["sessionId"]):
            log.debug("a client was refused: what it names is no session id")
            raise ConnectionRefusedError("malformed session id")
        before = self._names["WebsocketSession"].get_by_id(auth["sessionId"]) if names_one else None
        answer = await self._chainlit["connect"](sid, environ, auth)
        session = self._session(sid)
        if answer is not False and session is not None:
            await _guarded(self._take(sid, session, new=session is not before))
        return answer

    async def _take(self, sid: str, session: Any, *, new: bool) -> None:
        """Restores the session if it was elsewhere; before the client may say anything."""
        chat = ChainlitChat(session, self._names)
        connection = self._connections[sid] = await self._sharing.connect(chat, new=new)
        if found := connection.found:
            chat.abandon()  # what an old copy here still does
            if found.state is None or not await self._restore(chat, found.state):
                connection.discard()
                if not new:
                    self._forget(session)
        if not isinstance(session.files, _WatchedFiles):
            session.files = _WatchedFiles(session.files, partial(self._sharing.changed, session.id))
        self._wrap_callbacks(self._names["config"].code)

    def _forget(self, session: Any) -> None:
        """What is here is older than what cannot be restored: the chat begins anew."""
        session.restored = session.chat_started = session.has_first_interaction = False
        for kept in (self._names["user_sessions"], self._names["chat_contexts"]):
            kept.pop(session.id, None)

    def _wrap_callbacks(self, code: Any) -> None:
        """Has the app's callbacks write what they did; again and again, since an app may be loaded anew."""
        if code.on_message is not None and not hasattr(code.on_message, "is_stored"):
            code.on_message = self._stored(code.on_message)
        for name, callback in code.action_callbacks.items():
            if not hasattr(callback, "is_stored"):
                code.action_callbacks[name] = self._stored(callback)

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
        session = self._session(sid)
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
        if found is not None and found.turns:
            await _guarded(self._cut(sid, session, found.turns))

    async def _welcome(self, sid: str) -> Found | None:
        """What was found of a session, once: at its client's hello, or before what it says sooner."""
        connection = self._connections.get(sid)
        found = connection.told() if connection is not None else None
        if found is not None and found.state is not None:
            context = self._names["init_ws_context"](sid)
            await context.emitter.task_end()
            await context.emitter.clear("clear_ask")
            await context.emitter.clear("clear_call_fn")
            for callback in self.on_restore:
                await _guarded(callback())
        return found

    async def _cut(self, sid: str, session: Any, turns: list[Any]) -> None:
        """Tells the user that an answer was cut off, and asks again if that is wanted."""
        self._sharing.counts.cut_turns += 1
        self._names["init_ws_context"](session)
        if self._notice:
            notice = self._names["Message"](content=self._notice, type="system_message")
            await notice.send()
            contexts = self._names["chat_contexts"]
            contexts[session.id] = [message for message in contexts[session.id] if message is not notice]
        # Once only: a message that ends its instance would end one after the other.
        if self._retry_turn and turns[-1].get("message") and not turns[-1].get("tries"):
            await self._client_message(sid, turns[-1]["message"], tries=1)
        else:
            self._sharing.changed(session.id)  # it is no more under way

    async def _client_message(self, sid: str, payload: Any, tries: int = 0) -> None:
        session = self._session(sid)
        if session is None:
            await self._chainlit["client_message"](sid, payload)
            return
        if (found := await self._welcome(sid)) and found.turns:
            await _guarded(self._cut(sid, session, found.turns))
        turn = self._sharing.turn(session.id, {"message": payload, "tries": tries})
        if not await turn.begin():
            return  # its client is at another instance
        _turn.set(turn)
        try:
            await self._chainlit["client_message"](sid, payload)
        except BaseException:
            turn.end()
            raise
        session.current_task.add_done_callback(turn.end)

    async def _whole_turn(self, event: str, sid: str, *arguments: Any) -> Any:
        session = self._session(sid)
        if session is None:
            return await self._chainlit[event](sid, *arguments)
        async with self._sharing.turn(session.id, {"event": event}) as turn:
            if turn is None:
                return None
            _turn.set(turn)
            return await self._chainlit[event](sid, *arguments)

    async def _changing(self, event: str, sid: str, *arguments: Any) -> Any:
        try:
            return await self._chainlit[event](sid, *arguments)
        finally:
            if (session := self._session(sid)) is not None:
                self._sharing.changed(session.id)

    def _stored(self, callback: Handler) -> Handler:
        """A callback after which the state is in the store before the client is told that it has ended."""

        async def stored(*arguments: Any) -> Any:
            turn = _turn.get()
            if turn is None or turn.has_ended:  # a button
                turn = self._sharing.turn(self._names["context"].session.id)
            async with turn:
                return await callback(*arguments)

        stored.is_stored = True  # type: ignore[attr-defined]
        return stored

    async def _disconnect(self, sid: str, *_reason: Any) -> None:
        session, connection = self._session(sid), self._connections.pop(sid, None)
        over = session is not None and session.to_clear
        if session is not None and connection and await _guarded(connection.leaving()) is False:
            # Another instance has it: nothing of this copy goes to the data layer, or stays in memory.
            session.has_first_interaction = False
            session.to_clear = True
        try:
            await self._chainlit["disconnect"](sid)
        finally:  # a data layer that fails keeps no session alive
            if connection:
                await _guarded(connection.left(over=over))


async def _guarded(work: Coroutine[Any, Any, Any]) -> Any:
    """Does our part of an event; Chainlit's must not suffer from it."""
    try:
        return await work
    except Exception:
        log.exception("sharing a session failed")
        return None
