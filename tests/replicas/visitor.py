"""A visitor of a Chainlit page: one session over python-socketio, and the page's plain HTTP requests."""

import asyncio
import uuid
from types import TracebackType
from typing import Any, Self

import aiohttp
import socketio

PATIENCE = 30.0  # seconds for any answer; the machine may be busy


class Visitor:
    """Made by a test, for one instance; `async with` connects and disconnects it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = str(uuid.uuid4())
        self.messages: list[str] = []  # whole texts, in the order in which they were complete
        self.tokens: list[str] = []
        self.elements: list[dict[str, Any]] = []
        self.actions: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession()
        self._sio = socketio.AsyncClient(http_session=self.http, handle_sigint=False)
        self._sio.on("*", self._hear)
        auth = {
            "clientType": "webapp",
            "sessionId": self.session,
            "threadId": "",
            "userEnv": "{}",
            "chatProfile": "",
        }
        await self._sio.connect(self.url, socketio_path="/ws/socket.io", auth=auth, wait_timeout=PATIENCE)
        await self._sio.emit("connection_successful")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sio.disconnect()
        await self.http.close()

    def _hear(self, event: str, data: Any = None) -> None:
        match event:
            case "new_message" | "update_message" if data["type"] == "assistant_message" and data["output"]:
                self.messages.append(data["output"])
            case "stream_token":
                self.tokens.append(data["token"])
            case "element":
                self.elements.append(data)
            case "action":
                self.actions.append(data)
        self._news.set()

    async def reads(self, part: str) -> str:
        """Waits for a message that contains `part`; returns the newest such."""
        async with asyncio.timeout(PATIENCE):
            while not (found := [text for text in self.messages if part in text]):
                self._news.clear()
                await self._news.wait()
        return found[-1]

    async def hears(self, kept: list[dict[str, Any]]) -> dict[str, Any]:
        """Waits until there is an element or an action; returns the newest."""
        async with asyncio.timeout(PATIENCE):
            while not kept:
                self._news.clear()
                await self._news.wait()
        return kept[-1]

    async def says(self, text: str, *files: str) -> None:
        """Sends a message, with uploaded files by their ids."""
        message = {
            "id": str(uuid.uuid4()),
            "threadId": "",
            "name": "User",
            "type": "user_message",
            "output": text,
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
        await self._sio.emit(
            "client_message", {"message": message, "fileReferences": [{"id": file} for file in files]}
        )

    async def uploads(self, name: str, content: bytes) -> str:
        """Uploads a file; returns its id."""
        form = aiohttp.FormData()
        form.add_field("file", content, filename=name, content_type="text/plain")
        async with self.http.post(f"{self.url}/project/file?session_id={self.session}", data=form) as answer:
            assert answer.status == 200, await answer.text()
            return str((await answer.json())["id"])

    async def fetches(self, file: str) -> bytes:
        """Fetches an uploaded file or an element's content by its id."""
        async with self.http.get(f"{self.url}/project/file/{file}?session_id={self.session}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def clicks(self, action: dict[str, Any]) -> Any:
        """Clicks an action's button; returns what its callback returned."""
        payload = {"sessionId": self.session, "action": action}
        async with self.http.post(f"{self.url}/project/action", json=payload) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["response"]
