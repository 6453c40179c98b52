"""Turns of an app: recorded, run once, and told of or run elsewhere when their instance went away.

A turn is recorded before Chainlit hears of it, and once more when the app is called. Who takes the session
over runs what the app was not called for, once, and tells the user of the rest. What the proxy says again for
a client is known by its mark, of all that was said, and runs only if it was not taken before.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from .answers import Answers, PageLine, line_id
from .chat import said
from .live import Running
from .sharing import Sharing

log = logging.getLogger("chainlit_proxy.sessions")

WHOLE = ("edit_message", "audio_end")  # their handlers return when the turn has ended
MOST_MARKS = 64  # of what a client has said: more than can be on its way when it is handed over

# What an app's callback is a part of; set in the task of the event, so it is in those that Chainlit makes.
_turn: ContextVar[Running | None] = ContextVar("turn", default=None)

Handler = Callable[..., Coroutine[Any, Any, Any]]


class Turns:
    """Made once for a process, by `hooks`; a turn that was cut off is told by `notice`, or tried again."""

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
        self._names, self._sharing, self._notice, self._retry_turn = names, sharing, notice, retry_turn
        self._answers = answers
        self._chainlit: dict[str, Handler] = {}  # its own handlers
        self._welcome: Callable[[str], Coroutine[Any, Any, None]]
        self._tasks: set[asyncio.Task[Any]] = set()
        self._begun: WeakValueDictionary[tuple[str, str], Running] = WeakValueDictionary()  # by session, mark

    def handlers(
        self, chainlit: dict[str, Handler], welcome: Callable[[str], Coroutine[Any, Any, None]]
    ) -> dict[str, Handler]:
        """Those that replace Chainlit's; `welcome` is done before a message of a client."""
        self._chainlit, self._welcome = chainlit, welcome
        return {"client_message": self._client_message} | {e: partial(self._whole_turn, e) for e in WHOLE}

    def _session(self, sid: str) -> Any:
        return self._names["WebsocketSession"].get(sid)

    async def cut(self, session: Any, turns: list[Any], told: Callable[[Any], None]) -> None:
        """Runs what was not begun; tells the user of what was cut off, and asks again if that is wanted.

        `told` is called for each turn that need not be in the record any more, before others are written.
        """
        for turn in turns:
            if said_in := _said_in(turn):
                self._mark(session.socket_id, session, *said_in)
        # Once only: a message that ends its instance would end one after the other.
        late = [turn for turn in turns if turn.get("begun") is False and not turn.get("tries")]
        cut = [turn for turn in turns if turn not in late]
        self._sharing.counts.late_turns += len(late)
        self._names["init_ws_context"](session)
        if cut:
            await self._tell_cut(session)
        if self._retry_turn and cut and cut[-1] is turns[-1] and cut[-1].get("message"):
            late += [cut[-1]] if not cut[-1].get("tries") else []
        for turn in turns:
            if turn not in late:
                told(turn)
        for turn in late:
            if said_in := _said_in(turn):  # by the socket that is there now
                running = self._run(session.socket_id, *said_in, tries=1, told=partial(told, turn))
                await guarded(running)
        if not late:
            self._sharing.changed(session.id)  # it is no more under way

    async def _tell_cut(self, session: Any) -> None:
        self._sharing.counts.cut_turns += 1
        if self._notice:
            await guarded(self._notify(session))

    async def _notify(self, session: Any) -> None:
        """The notice is for the user alone: no message of the chat."""
        notice = self._names["Message"](content=self._notice, type="system_message")
        await notice.send()
        contexts = self._names["chat_contexts"]
        contexts[session.id] = [message for message in contexts[session.id] if message is not notice]

    async def say_again(self, sid: str, event: str, payload: Any, *, begun: bool) -> bool | None:
        """Takes what a client has said, once; as `Sessions` in `hand_over`.

        What had begun and is not known was begun while the store was down: that must not run, and is told.
        """
        session, counts = self._session(sid), self._sharing.counts
        if session is None:
            return False
        marks, name = said(session), payload["message"]["id"]
        messages = list(self._names["chat_contexts"].get(session.id, ()))
        at = next((number for number, message in enumerate(messages) if message.id == name), None)
        mark = _mark_of(event, payload)
        # Where nothing is marked an instance of an older version has been: its messages alone tell.
        known = mark in marks or (not marks and at is not None and event == "client_message")
        if not known and begun:
            self._names["init_ws_context"](session)
            await self._tell_cut(session)
            self._mark(sid, session, event, payload)
            return None
        if not known:
            counts.said_again += 1
            if not await self._run(sid, event, payload):
                return False
            return self._is_under_way(session, mark)
        counts.known_again += 1
        if at is not None and marks.get(mark) != sid:  # the client may have missed what followed
            emitter = self._names["init_ws_context"](session).emitter
            for message in messages[at + 1 :]:
                await emitter.send_step(message.to_dict())
                for element in getattr(message, "elements", None) or ():
                    await emitter.send_element(element.to_dict())
        return self._is_under_way(session, mark)

    async def _run(
        self, sid: str, event: str, payload: Any, tries: int = 0, told: Callable[[], None] | None = None
    ) -> bool:
        """Has a message run; returns once it has been taken: False if another instance has the session."""
        if (turn := await self._begin(sid, event, payload, tries, told)) is None:
            return False
        if event == "client_message":
            await self._message(turn, sid, payload)
            return True
        task = asyncio.create_task(guarded(self._whole(turn, event, sid, payload)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _begin(
        self, sid: str, event: str, payload: Any, tries: int = 0, told: Callable[[], None] | None = None
    ) -> Running | None:
        """Begins the turn of something that the client has said; None: it must not run here.

        `told` is called before anything is written of it.
        """
        session, own = self._session(sid), {"tries": tries, "begun": False}
        record = {"message": payload} if event == "client_message" else {"event": event, "edit": payload}
        turn = self._sharing.turn(session.id, record | own)
        if told is not None:
            told()
        if not await turn.begin():
            return None  # its client is at another instance
        self._begun[session.id, self._mark(sid, session, event, payload)] = turn
        return turn

    def _is_under_way(self, session: Any, mark: str) -> bool | None:
        """True, or None: whether the answer to something that was taken is still to come, from here."""
        turn = self._begun.get((session.id, mark))
        return None if turn is None or turn.has_ended else True

    def _mark(self, sid: str, session: Any, event: str, payload: Any) -> str:
        """Remembers that this was taken, so that it is known if it is said again; returns its mark."""
        marks, mark = said(session), _mark_of(event, payload)
        marks.pop(mark, None)  # the newest is the last one
        marks[mark] = sid
        while len(marks) > MOST_MARKS:
            del marks[next(iter(marks))]
        return mark

    async def _client_message(self, sid: str, payload: Any) -> None:
        if self._session(sid) is None:
            await self._chainlit["client_message"](sid, payload)
        else:
            await guarded(self._welcome(sid))
            await self._run(sid, "client_message", payload)

    async def _message(self, turn: Running, sid: str, payload: Any) -> None:
        session = self._session(sid)
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
        if event == "edit_message" and arguments:
            turn = await self._begin(sid, event, arguments[0])
        else:
            turn = self._sharing.turn(session.id, {"event": event})
        return None if turn is None else await self._whole(turn, event, sid, *arguments)

    async def _whole(self, turn: Running, event: str, sid: str, *arguments: Any) -> Any:
        async with turn as running:
            if running is None:
                return None
            _turn.set(turn)
            return await self._chainlit[event](sid, *arguments)

    def wrap_callbacks(self, code: Any) -> None:
        """Has the app's callbacks write what they did; again and again, since an app may be loaded anew."""
        if code.on_message is not None and not hasattr(code.on_message, "is_stored"):
            code.on_message = self._stored(code.on_message, waits=True)
        for name, callback in code.action_callbacks.items():
            if not hasattr(callback, "is_stored"):
                code.action_callbacks[name] = self._stored(callback)

    def _stored(self, callback: Handler, *, waits: bool = False) -> Handler:
        """A callback after which the state is in the store before the client is told that it has ended.

        `waits`: for its turn, where so many may be answered at once. Meanwhile it has not begun: whoever
        takes the session over then runs it.
        """

        async def stored(*arguments: Any) -> Any:
            turn = _turn.get()
            if turn is None or turn.has_ended:  # a button
                turn = self._sharing.turn(self._names["context"].session.id)
            async with turn:
                if waits and self._answers is not None:
                    return await self._in_its_turn(self._answers, turn, callback, arguments)
                return await callback(*arguments) if await turn.calls() else None

        stored.is_stored = True  # type: ignore[attr-defined]
        return stored

    async def _in_its_turn(
        self, answers: Answers, turn: Running, callback: Handler, arguments: tuple[Any, ...]
    ) -> Any:
        context, message = self._names["context"], arguments[0]

        def step() -> dict[str, Any]:
            notice = self._names["Message"](content="", type="system_message")
            return {**notice.to_dict(), "createdAt": message.created_at}

        line = PageLine(context.emitter, line_id(message.id), step)
        if turn.is_tried:
            await line.take_back(anyway=True)  # what the instance before has said
        if not await answers.begin(context.session.id, line):
            return None
        try:
            return await callback(*arguments) if await turn.calls() else None
        finally:
            answers.end()


async def guarded(work: Coroutine[Any, Any, Any]) -> Any:
    """Does our part of an event; Chainlit's must not suffer from it."""
    try:
        return await work
    except Exception:
        log.exception("sharing a session failed")
        return None


def _said_in(turn: Any) -> tuple[str, Any] | None:
    """The event and the payload of a turn that was recorded, if it can be run."""
    if turn.get("message"):
        return "client_message", turn["message"]
    return ("edit_message", turn["edit"]) if turn.get("edit") else None


def _mark_of(event: str, payload: Any) -> str:
    """By which something that a client has said is known if it is said again: all of it."""
    text = json.dumps([event, payload], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
