"""One conversation as Chainlit's page has it, over any link.

A `Chat` announces its session, connects, says `connection_successful` after every connect, asks and
understands the answers of the test app. It holds what a page holds: the session id and what it was told.
"""

import asyncio
import contextlib
import itertools
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.support.journal import Journal
from tests.support.link import Event, Exchange, Identity, Link, Request, Upload
from tests.support.waiting import Bound, eventually, one_of

PATIENCE = 20.0
LOCATE = "GET /project/file/x"
NOTICED = 3.0  # seconds until a client has seen that its connection is gone
CUTS = 4  # tries
_nonces = itertools.count(1)


@dataclass(slots=True)
class Reply:
    """An answer of the test app."""

    instance: str
    session: str
    n: int
    nonce: str
    fields: dict[str, str] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> "Reply | None":
        """Reads `instance=... session=... n=... nonce=...`, whatever stands before it; else None."""
        fields = dict(part.split("=", 1) for part in text.split() if "=" in part)
        if not {"instance", "session", "n", "nonce"} <= fields.keys():
            return None
        return cls(fields["instance"], fields["session"], int(fields["n"]), fields["nonce"], fields)


def is_lost_session(exchange: Exchange) -> bool:
    """Whether the answer is one of those that a client must never see."""
    body = exchange.body.lower()
    return "invalid session" in body or "session id unknown" in body or "session not found" in body


class Chat:
    """A tab with one session; created by `Clients`, closed by it too."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.session = str(uuid.uuid4())
        self.greetings: list[Reply] = []  # one more for each time on_chat_start ran
        self.heard = 0  # tokens that came so far
        self.events: list[Event] = []  # connect, disconnect and connect_error
        self.connects = 0
        self.updates: list[dict[str, Any]] = []  # of messages that it has
        self.asked = 0  # what the app's count must be, as long as the session lives
        self.ready = False  # true while the server has answered the newest connect
        self.transport = ""  # polling or websocket
        self.ready_at = 0.0  # when it last did, in seconds since the epoch
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._elements: dict[str, str] = {}  # name -> key of the newest
        self.unfinished: dict[str, list[str]] = {}  # what was streamed of messages that are not whole, by id
        self._tasks: set[asyncio.Task[None]] = set()
        link.listener = self._take

    def __repr__(self) -> str:
        return f"<Chat {self.link.kind} {self.session[:8]} at {self.home}>"

    @property
    def home(self) -> str | None:
        """The instance that greeted this session last."""
        return self.greetings[-1].instance if self.greetings else None

    def _take(self, event: Event) -> None:
        if event.name in {"connect", "disconnect", "connect_error"}:
            self.events.append(event)
            self.ready = False
        match event.name:
            case "upgrade":
                self.transport = event.data
            case "connect":
                self.transport = event.data
                self.connects += 1
                task = asyncio.create_task(self._introduce())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "task_end" if not self.ready:
                self.ready_at = event.t
                self.ready = True
            case "stream_start":
                self.unfinished[event.data["id"]] = [event.data["output"]]
            case "stream_token":
                self.unfinished.setdefault(event.data["id"], []).append(event.data["token"])
                self.heard += 1
            case "new_message":
                self._take_message(event.data)
            case "update_message":
                self.updates.append(event.data)
            case "element":
                self._elements[event.data["name"]] = event.data["chainlitKey"]

    async def _introduce(self) -> None:
        """What the page sends after every connect."""
        await self.link.emit("connection_successful")
        await self.link.emit("fetch_favorites")

    def _take_message(self, step: dict[str, Any]) -> None:
        reply = Reply.parse(step["output"])
        if reply is None:
            return
        reply.tokens = self.unfinished.pop(step["id"], [])
        if reply.nonce == "greeting":
            self.greetings.append(reply)
            self._elements.clear()  # those of another instance; its own come behind the message
        elif (waiting := self._replies.pop(reply.nonce, None)) and not waiting.done():
            waiting.set_result(reply)

    async def open(self, within: float = PATIENCE) -> None:
        """Announces the session if this kind of client does, connects, and waits for the greeting."""
        if self.link.kind.identity is not Identity.BARE:
            await self.http("POST", "/set-session-cookie", json={"session_id": self.session})
        await self.link.open(
            {
                "clientType": "webapp",
                "sessionId": self.session,
                "threadId": "",
                "userEnv": "{}",
                "chatProfile": "",
            }
        )
        await eventually(
            lambda: self.ready and self.greetings, within, lambda: f"{self} ready: {self.story()}"
        )

    async def say(self, text: str = "say", files: tuple[str, ...] = ()) -> tuple[str, asyncio.Future[Reply]]:
        """Sends a message; by what it is known, and its answer, which may never come."""
        nonce = f"q{next(_nonces)}"
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[nonce] = waiting
        message = {
            "id": str(uuid.uuid4()),
            "threadId": "",
            "name": "user",
            "type": "user_message",
            "output": f"{nonce} {text}",
            "createdAt": "2026-01-01T00:00:00Z",
        }
        references = [{"id": key} for key in files]
        await self.link.emit("client_message", {"message": message, "fileReferences": references})
        return nonce, waiting

    async def ask(self, text: str = "say", files: tuple[str, ...] = (), within: float = PATIENCE) -> Reply:
        """Sends a message and waits for its answer."""
        nonce, waiting = await self.say(text, files)
        try:
            await one_of({waiting}, within)
        finally:
            self._replies.pop(nonce, None)
        assert waiting.done(), f"{self}: no answer to {text!r} in {within:g} s: {self.story()}"
        self.asked += 1
        return waiting.result()

    async def http(self, method: str, path: str, json: Any = None, upload: Upload | None = None) -> str:
        """Makes one of the page's HTTP calls; the body, or AssertionError unless it is answered 200."""
        headers = {"x-nonce": f"h{next(_nonces)}", "x-test-session": self.session}
        answer = await self.link.request(Request(method, path, json, upload, headers))
        assert answer.status == 200, f"{self}: {method} {path} -> {answer.status} {answer.body[:200]}"
        return answer.body

    async def upload(self, content: str) -> str:
        """Uploads a file; its id, to be used in `ask(files=...)`."""
        body = await self.http(
            "POST", f"/project/file?session_id={quote(self.session)}", upload=Upload("up.txt", content)
        )
        return body.split('"id":"')[1].split('"')[0]

    async def fetch(self, name: str = "greeting.txt") -> str:
        """Fetches the element of that name, once the server has announced it; its text."""
        key = await eventually(lambda: self._elements.get(name), PATIENCE, f"{self} told of {name}")
        return await self.http("GET", f"/project/file/{key}?session_id={quote(self.session)}")

    async def action(self) -> Reply:
        """Presses the app's button."""
        nonce = f"a{next(_nonces)}"
        action = {
            "id": str(uuid.uuid4()), "name": "act", "payload": {"nonce": nonce}, "label": "Act",
            "tooltip": "", "icon": None, "forId": None,
        }  # fmt: skip
        body = await self.http("POST", "/project/action", json={"sessionId": self.session, "action": action})
        reply = Reply.parse(body.replace('"', " "))
        assert reply, body
        self.asked += 1
        return reply

    async def drop(self, within: float = PATIENCE) -> None:
        """Loses the connection and waits until the library has brought it back."""
        before, lost = self.connects, self.losses
        for _ in range(CUTS):
            await self.link.cut()
            with contextlib.suppress(AssertionError):  # it was between two requests: nothing was lost
                await eventually(lambda: self.losses > lost, NOTICED, "the loss")
                break
        await self.back(before, within)

    @property
    def losses(self) -> int:
        """How often the library has lost its connection."""
        return sum(event.name == "disconnect" for event in self.events)

    async def back(self, before: int, within: float = PATIENCE) -> None:
        """Waits until the session works again after more than `before` connects."""
        await eventually(
            lambda: self.connects > before and self.ready, within, lambda: f"{self} back: {self.story()}"
        )

    def refused(self) -> list[Exchange]:
        """Every exchange that was answered with an error."""
        return [exchange for exchange in self.link.exchanges if exchange.status >= 400]

    def story(self) -> str:
        """What the client saw last, for a failing test."""
        events = [f"{event.t:.2f} {event.name} {event.data}" for event in self.events[-6:]]
        seen = [
            f"{e.t:.2f} {e.method} {e.path[:120]} {e.status} {e.body[:120]}" for e in self.link.exchanges[-6:]
        ]
        return "\n  ".join(["", *events, *seen])

    async def check(self, journal: Journal) -> None:
        """Uses the session in every way there is, and finds all of it at the instance that holds it."""
        home = self.home
        assert home
        assert await self.fetch() == f"greeting of {home}"
        key = await self.upload(f"up-{self.session[:8]}")
        replies = [await self.ask(files=(key,)), await self.action(), await self.ask("element")]
        assert replies[0].fields["files"] == f"up-{self.session[:8]}"
        assert await self.fetch(f"{replies[2].nonce}.txt") == f"{replies[2].nonce} of {home}"
        replies += [await self.ask("ask"), await self.ask("stream 5")]
        assert replies[3].fields["said"] == "yes"
        assert "".join(replies[4].tokens).split()[:5] == [f"t{i}" for i in range(5)]
        assert {reply.instance for reply in replies} == {home}
        assert {reply.session for reply in replies} == {self.session}
        assert replies[-1].n == self.asked
        self.check_home(journal)

    async def recover(self, within: float = PATIENCE) -> Reply:
        """Asks until an answer comes, however often the connection is lost meanwhile; that answer.

        A new instance may answer before its greeting has come; it is waited for, so that `home` is true.
        """
        reply = await self.insist(within)
        self.asked = reply.n  # some that were asked before arrived, others did not
        await self._greeted_by(reply.instance, within)
        return reply

    async def insist(self, within: float = PATIENCE) -> Reply:
        """Asks until an answer comes, however often the connection is lost meanwhile; that answer."""
        bound = Bound(within)
        while True:
            await eventually(lambda: self.ready, within, lambda: f"{self} ready: {self.story()}")
            try:
                return await self.ask(within=3)
            except AssertionError:
                if not bound.left:
                    raise

    async def _greeted_by(self, instance: str, within: float) -> None:
        await eventually(
            lambda: self.home == instance, within, lambda: f"{self} greeted by {instance}: {self.story()}"
        )

    async def go_on(self, within: float = PATIENCE) -> Reply:
        """Asks until an answer comes; it knows the session, which was not greeted again. That answer."""
        reply = await self.insist(within)
        assert reply.n >= self.asked, f"{self} forgot: {self.story()}"
        assert len(self.greetings) == 1, f"{self} was greeted by {self.greetings}: {self.story()}"
        self.asked = reply.n
        return reply

    async def resume(self, within: float = PATIENCE) -> None:
        """As `recover`, and the session still knows what it was told."""
        before = self.asked
        reply = await self.recover(within)
        greeted = [greeting.instance for greeting in self.greetings]
        assert reply.n > before, f"{self} forgot, was greeted by {greeted}: {self.story()}"

    def check_home(self, journal: Journal) -> None:
        """The session started only where the client was greeted, and lives on the last of these instances."""
        starts = journal.starts(self.session)
        greeted = [greeting.instance for greeting in self.greetings]
        assert starts == greeted, f"{self} started on {starts}, was greeted by {greeted}: {self.story()}"
        begun = journal.entries(self.session, "start")[-1].t
        elsewhere = [
            entry
            for entry in journal.entries(self.session)
            if entry.t > begun
            and entry.instance != self.home
            and entry.kind != "end"
            and entry.details.get("request") != LOCATE  # the proxy asks everybody, with the client's fields
        ]
        assert not elsewhere, f"{self}: {elsewhere}"

    def check_unmoved(self, journal: Journal) -> None:
        """The session is where it began: `on_chat_start` ran once, and nothing happened elsewhere."""
        assert len(self.greetings) == 1, f"{self} was greeted by {self.greetings}: {self.story()}"
        self.check_home(journal)
