"""One simulated user: opens a session, asks, waits for the answer, thinks, asks again; comes back if lost.

Times are as a user feels them: a session is open when the page would let one type, an answer begins with
its first text and ends when the page stops its dots.
"""

import asyncio
import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp

from proxy.load.protocol import Line, LineError, Transport, staying
from proxy.load.tally import Answer, Tally

_BACK = (0.5, 1.5)  # seconds after which Socket.IO's client comes back
_NOW = "1970-01-01T00:00:00Z"  # of a message: Chainlit wants one, and takes its own


@dataclass(frozen=True, slots=True)
class Habits:
    """What all users do."""

    url: str
    questions: Sequence[str]
    think: float  # seconds between an answer and the next question, on average
    patience: float  # seconds after which an answer is given up
    headers: dict[str, str]


class User:
    """Made and run by the crowd."""

    def __init__(
        self, number: int, habits: Habits, transport: Transport, tally: Tally, connector: aiohttp.TCPConnector
    ) -> None:
        self._number, self._habits, self._transport = number, habits, transport
        self._tally, self._connector = tally, connector
        self._session = str(uuid.uuid4())
        self._random = random.Random(number)  # noqa: S311 - the same user does the same in each run
        self._line: Line | None = None  # set while it is connected
        self._has_opened = False  # whether its session has begun
        self._usable = asyncio.Event()  # set while the page would let one type
        self._done = asyncio.Event()  # set when the answer has ended
        self._asked = self._first = 0.0  # when, of the answer under way; 0 while there is none
        self._tokens = 0
        self._replies: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # "unsafe": cookies for an address, not a name
            headers=self._habits.headers,
            trace_configs=[staying()],
        ) as http:
            talking = asyncio.create_task(self._talk())
            try:
                while True:
                    await self._connected(http)
                    await asyncio.sleep(self._random.uniform(*_BACK))
            finally:
                talking.cancel()
                self._tally.waiting.pop(self._number, None)
                if self._line is not None:
                    await self._line.close()

    async def _connected(self, http: aiohttp.ClientSession) -> None:
        """One connection, from its beginning to its loss."""
        began, tally = monotonic(), self._tally
        line = Line(http, self._habits.url, self._transport, self._heard)
        try:
            await self._announce(http)
            auth = {"clientType": "webapp", "sessionId": self._session, "threadId": "", "userEnv": "{}"}
            await line.open(auth | {"chatProfile": ""})
        except LineError as error:
            tally.errors.append((monotonic(), f"connect: {error}"))
            return
        self._line = line
        tally.connected += 1
        tally.opened += not self._has_opened
        self._has_opened = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(line.listen())
                await line.emit("connection_successful")
                await self._usable.wait()
                tally.connects.append((monotonic(), monotonic() - began))
        except* LineError as group:
            tally.disconnects.append((monotonic(), str(group.exceptions[0])))
        finally:
            tally.connected -= 1
            self._line = None
            self._usable.clear()

    async def _announce(self, http: aiohttp.ClientSession) -> None:
        """As the page does before each connect; versions before 2.5.5 have no such address."""
        try:
            async with http.post(
                f"{self._habits.url}/set-session-cookie",
                json={"session_id": self._session},
                allow_redirects=False,
            ) as answer:
                await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass  # the page does not mind either

    async def _talk(self) -> None:
        think = self._habits.think
        await asyncio.sleep(self._random.uniform(0, think))  # who comes together does not ask together
        while True:
            await self._usable.wait()
            try:
                await self._ask()
            except LineError as error:  # its line may go on: one question can be refused alone
                self._tally.errors.append((monotonic(), f"question: {error}"))
            await asyncio.sleep(think * self._random.uniform(0.5, 1.5))

    async def _ask(self) -> None:
        """One question with its answer."""
        if self._line is None:
            await asyncio.sleep(0)
            return
        tally = self._tally
        self._done.clear()
        self._asked, self._first, self._tokens = monotonic(), 0.0, 0
        tally.asked += 1
        tally.waiting[self._number] = self._asked
        try:
            message = self._message(self._random.choice(self._habits.questions))
            await self._line.emit("client_message", {"message": message, "fileReferences": []})
            async with asyncio.timeout(self._habits.patience):
                await self._done.wait()
        except TimeoutError:
            tally.errors.append((monotonic(), f"no whole answer within {self._habits.patience:g} s"))
        else:
            if self._first:
                tally.answers.append(Answer(self._asked, self._first, monotonic(), self._tokens))
            else:
                tally.errors.append((monotonic(), "an answer without any text"))
        finally:
            self._asked = 0.0
            tally.waiting.pop(self._number, None)

    def _message(self, text: str) -> dict[str, Any]:
        return {
            "id": str(uuid.uuid4()), "threadId": "", "name": "user", "type": "user_message",
            "output": text, "createdAt": _NOW,
        }  # fmt: skip

    def _heard(self, event: str, arguments: list[Any], acknowledge: str) -> None:
        if event == "stream_token":
            self._token()
        elif event == "stream_start":
            self._token()  # it brings the first
        elif event == "task_end":
            if not self._usable.is_set():
                self._usable.set()  # what it says after every connect ends no answer
            elif self._asked:
                self._done.set()
        elif event in {"new_message", "update_message"}:
            step = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
            if step.get("type") == "assistant_message" and step.get("output"):
                self._text()
        elif event == "ask" and acknowledge and self._line is not None:
            reply = self._message(self._random.choice(self._habits.questions))
            self._reply(self._line, f"{acknowledge}{json.dumps([reply])}")

    def _token(self) -> None:
        self._text()
        self._tokens += 1
        self._tally.tokens[int(monotonic())] += 1

    def _text(self) -> None:
        if self._asked and not self._first:
            self._first = monotonic()
            self._tally.waiting.pop(self._number, None)

    def _reply(self, line: Line, packet: str) -> None:
        async def reply() -> None:
            try:
                await line.send(packet)
            except LineError:
                return

        task = asyncio.create_task(reply())
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    def __repr__(self) -> str:
        return f"<User {self._number} {self._transport} connected={self._line is not None}>"
