"""Instances of the real Chainlit in one process, one after the other on the stage, and clients' transports.

What belongs to an instance is Chainlit's own memory, which is put away while another is on the stage, its
hooks and its view of the store. Packets are given to Chainlit's Socket.IO server as a transport brings them,
and what it sends is kept. Chainlit makes folders and patches asyncio when it is imported: for processes of
their own.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, attr-defined, method-assign, assignment"
# Chainlit claims to be typed, but some of its methods are not; and here they are replaced.

import asyncio
import itertools
import json
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import chainlit as cl
from chainlit.chat_context import chat_contexts
from chainlit.server import sio
from chainlit.session import ws_sessions_id, ws_sessions_sid
from chainlit.user_session import user_sessions

from proxy.sessions.answers import Answers
from proxy.sessions.chat import find
from proxy.sessions.files import FolderFiles
from proxy.sessions.hooks import Hooks
from proxy.sessions.sharing import Sharing
from proxy.sessions.store import Store
from tests.support.tabs import Flaky, end_tasks
from tests.support.waiting import eventually

NOTICE = "cut off"
OURS = "/chainlit-proxy"
MEMORY: tuple[dict[Any, Any], ...] = (ws_sessions_sid, ws_sessions_id, user_sessions, chat_contexts)
CHAINLITS = dict(sio.handlers["/"])
NAMES = find()
WITHIN = 10.0
KEPT: set[asyncio.Task[Any]] = set()  # tasks that outlive instances
_numbers = itertools.count(1)
_wires: dict[str, "Wire"] = {}


async def _send(engine: str, data: Any) -> None:
    _wires[engine].got.append(data)


async def _send_packet(engine: str, packet: Any) -> None:
    _wires[engine].got.append(packet.data)


sio.eio.send, sio.eio.send_packet = _send, _send_packet


class Mortal(Flaky):
    """A store whose instance dies behind a write in which these words are."""

    last_words = ""

    def __getattr__(self, name: str) -> Any:
        operation = super().__getattr__(name)

        async def watched(*arguments: Any) -> Any:
            answer = await operation(*arguments)
            if name == "write" and self.last_words and self.last_words in (arguments[3].turns or ""):
                self.down = True
            return answer

        return watched


class Instance:
    """One, and what its app has been called for."""

    on_stage: "Instance | None" = None

    def __init__(
        self, store: Store, *, retry_turn: bool = False, most_answers: int = 0, most_waiting: int = 10
    ) -> None:
        self.store = Mortal(store)
        self.sharing = Sharing(self.store, FolderFiles(Path("shared"), 1000), lambda: 60.0)
        self.called: list[str] = []  # what the app was asked
        self.begun: list[str] = []  # of the events of a session
        self.gate = asyncio.Event()  # until which a "wait" is not answered
        self._memory: tuple[dict[Any, Any], ...] = ({}, {}, {}, {})
        self._retry_turn = retry_turn
        self._handlers: dict[str, Any] = {}
        self._code: dict[str, Any] = {}
        self.enter()
        answers = Answers(most_answers, most_waiting, self.counts) if most_answers else None
        hooks = self.hooks = Hooks(NAMES, self.sharing, NOTICE, retry_turn=retry_turn, answers=answers)
        hooks.install()
        hooks.on_restore.append(self._restored)
        self._handlers = {name: dict(handlers) for name, handlers in sio.handlers.items()}
        cl.on_message(self._message)
        cl.on_chat_start(self._start)
        self._code = dict(vars(NAMES["config"].code))

    @property
    def counts(self) -> Any:
        """What it has counted."""
        return self.sharing.counts

    def enter(self) -> None:
        """It is on the stage from now on."""
        if (before := Instance.on_stage) is not None:
            before._memory = tuple(dict(each) for each in MEMORY)
            before._code = dict(vars(NAMES["config"].code))
        for each, kept in zip(MEMORY, self._memory, strict=True):
            each.clear()
            each.update(kept)
        Instance.on_stage = self
        sio.handlers.update(self._handlers or {"/": dict(CHAINLITS)})
        vars(NAMES["config"].code).update(self._code)

    async def settled(self) -> None:
        """Waits until it has written what it has: it must not look at the memory of the next one."""

        def quiet() -> bool:
            lives = self.sharing._live.values()
            return not self.sharing._tasks and not any(live.timer or live.turns for live in lives)

        await eventually(quiet, WITHIN, "everything is written")

    async def die(self) -> None:
        """It writes nothing any more, and nothing of it runs."""
        self.store.down = True
        await end_tasks(KEPT)

    async def _start(self) -> None:
        self.begun.append("start")

    async def _restored(self) -> None:
        self.begun.append("restoring")
        await asyncio.sleep(0.05)
        self.begun.append("restored")

    async def _message(self, incoming: cl.Message) -> None:
        if self.store.down and self.store.last_words:
            await asyncio.Event().wait()  # it is dead
        self.called.append(incoming.content)
        self.begun.append(incoming.content)
        if incoming.content.startswith("wait"):
            await self.gate.wait()
        n = int(cl.user_session.get("n") or 0) + 1
        cl.user_session.set("n", n)
        files = [cl.File(name="f", url="https://example.com/f")] if "file" in incoming.content else []
        if "ask" in incoming.content:
            asked = await cl.AskUserMessage(content="well?", timeout=5).send()
            await cl.Message(content=f"you said {asked['output'] if asked else 'nothing'}").send()
        await cl.Message(content=f"{n} {incoming.content}", elements=files).send()


class Transport:
    """One of python-engineio's, as far as it is ended."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[None] = asyncio.Queue()
        self.ended = 0

    async def close(self, **_: bool) -> None:
        """Counted."""
        self.ended += 1


class Wire:
    """A transport, as its instance sees it; `got` is what was sent to it."""

    def __init__(self, session: str = "", client: str = "webapp") -> None:
        self.session = session or str(uuid.uuid4())
        self.engine = f"engine-{next(_numbers)}"
        self.client = client
        self.got: list[str] = []
        _wires[self.engine] = self

    @classmethod
    async def open(cls, session: str = "", client: str = "webapp") -> "Wire":
        """A transport on which nothing was said yet."""
        wire = cls(session, client)
        await sio._handle_eio_connect(wire.engine, {})
        return wire

    def transport(self) -> Transport:
        """What python-engineio has for it from now on."""
        made: Transport = sio.eio.sockets.setdefault(self.engine, Transport())
        return made

    async def say(self, packet: str) -> None:
        """A packet comes."""
        await sio._handle_eio_message(self.engine, packet)

    async def connect(self) -> bool:
        """CONNECT, as a client says it; whether it was accepted."""
        auth = {"sessionId": self.session, "clientType": self.client, "userEnv": "{}", "threadId": ""}
        await self.say("0" + json.dumps(auth))
        return self.last().startswith('0{"sid"')

    async def greet(self) -> None:
        """As a page does it; returns when that was heard."""
        await self.event("connection_successful")
        await self.heard("clear_call_fn")

    async def begin(self) -> "Wire":
        """A page that begins a chat."""
        assert await self.connect()
        await self.greet()
        return self

    async def event(self, name: str, *arguments: Any, space: str = "", ack: int | None = None) -> None:
        """An event comes, of a client or of the proxy."""
        packet = json.dumps([name, *arguments])
        await self.say(f"2{space + ',' if space else ''}{'' if ack is None else ack}{packet}")

    async def joins(self) -> bool:
        """The proxy joins its namespace, and says the client's CONNECT."""
        await self.say(f"0{OURS},")
        assert self.last().startswith(f'0{OURS},{{"sid"')
        return await self.connect()

    async def asks(self, ack: int, name: str, *arguments: Any) -> Any:
        """The proxy says an event, and waits for what is answered."""
        await self.event(name, *arguments, space=OURS, ack=ack)
        start = f"3{OURS},{ack}["
        packet = await eventually(
            lambda: self.find(lambda p: p.startswith(start)), WITHIN, f"answer to {name}"
        )
        assert packet
        self.got.remove(packet)
        return json.loads(packet[len(start) - 1 :])

    async def resumes(self, streaming: str | None = None) -> bool:
        """The whole hand-over; whether the client goes on."""
        return await self.joins() and await self.asks(0, "resume", {"streaming": streaming}) == [True]

    async def close(self) -> None:
        """It ends."""
        await sio._handle_eio_disconnect(self.engine, "transport close")

    def last(self) -> str:
        """The last packet that was sent."""
        return self.got[-1]

    def find(self, question: Callable[[str], bool]) -> str | None:
        """The first packet of which it is so."""
        return next((packet for packet in self.got if question(packet)), None)

    def events(self) -> list[Any]:
        """The events of the session that were sent, with their content."""
        packets = (packet[1:].lstrip("0123456789") for packet in self.got if packet.startswith("2"))
        return [json.loads(packet) for packet in packets if packet.startswith("[")]

    def names(self) -> list[str]:
        """Their names."""
        return [event[0] for event in self.events()]

    def shown(self) -> list[str]:
        """The messages that it was sent, as they read."""
        return [
            event[1]["output"]
            for event in self.events()
            if event[0] == "new_message" and event[1]["type"] != "run"
        ]

    async def heard(self, name: str) -> None:
        """Waits for an event of this name."""
        await eventually(lambda: name in self.names(), WITHIN, lambda: f"{name} in {self.got}")

    async def answered(self, text: str) -> None:
        """Waits for a message that ends like that, and for the end of its turn."""

        def ended() -> bool:
            at = next(
                (
                    i
                    for i, e in enumerate(self.events())
                    if e[0] == "new_message" and e[1]["output"].endswith(text)
                ),
                None,
            )
            return at is not None and "task_end" in self.names()[at:]

        await eventually(ended, WITHIN, lambda: f"{text} in {self.got}")

    async def turn(self, text: str) -> dict[str, Any]:
        """A whole turn; what was said."""
        said = message(text)
        await self.event("client_message", said)
        await self.answered(text)
        return said


def message(text: str) -> dict[str, Any]:
    """What a page says."""
    step = {"id": str(uuid.uuid4()), "threadId": "", "name": "user", "type": "user_message", "output": text}
    return {"message": step | {"createdAt": "2026-01-01T00:00:00Z"}, "fileReferences": []}


async def play(scenarios: Iterable[Callable[[], Awaitable[Any]]]) -> None:
    """Runs all, or those that the command line names; prints what came of them, by their names, as JSON."""
    KEPT.update(asyncio.all_tasks())
    answers: dict[str, Any] = {}
    for scenario in scenarios:
        name = scenario.__name__
        if len(sys.argv) < 3 or name in sys.argv:
            try:
                answers[name] = await asyncio.wait_for(scenario(), 30)
            except Exception:
                answers[name] = traceback.format_exc()
            await end_tasks()
    print(json.dumps(answers))
