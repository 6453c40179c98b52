"""Real Chainlit instances, and clients that hold their sessions, for the benchmarks that need them."""

import asyncio
import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import socketio

from proxy.replicas import LAUNCHER, SHARING
from tests.support.instances import http_status
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

APP = Path(__file__).with_name("streaming_app.py")


class Instance(Process):
    """One Chainlit process, which shares through `store` if there is one."""

    def __init__(self, name: str, folder: Path, store: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        root = folder / name
        root.mkdir()
        where = ["--headless", "--host", "127.0.0.1", "--port", str(self.port)]
        env = {SHARING: json.dumps({"store": store})} if store else {}
        command = [sys.executable, "-P", str(LAUNCHER), "--state", "state", "run", str(APP), *where]
        super().__init__(name, command, folder / f"{name}.log", env=env, cwd=root)

    def wait_ready(self) -> None:
        """Waits until it answers."""
        wait_until(lambda: http_status(f"{self.url}/health") == 200, 60, self.tail)


class Tab:
    """One session's client; it says messages and waits for the end of their turns."""

    def __init__(self, session: str | None = None) -> None:
        self.session = session or str(uuid.uuid4())
        self._sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        self._sio.on("task_end", self._end)
        self._sio.on("stream_start", self._token)  # which brings the first one
        self._sio.on("stream_token", self._token)
        self._ended = asyncio.Event()
        self.tokens = 0  # of the turn
        self._asked = 0.0
        self.first = 0.0  # seconds from the message to its first token

    async def _end(self, _: Any = None) -> None:
        self._ended.set()

    async def _token(self, _: Any) -> None:
        if not self.tokens:
            self.first = time.perf_counter() - self._asked
        self.tokens += 1

    async def open(self, url: str) -> float:
        """Connects; seconds until the session is there. The cookie is the one that Chainlit's page sets."""
        auth = {"clientType": "webapp", "sessionId": self.session, "threadId": "", "userEnv": "{}"}
        begun = time.perf_counter()
        await self._sio.connect(
            url,
            auth=auth,
            headers={"Cookie": f"X-Chainlit-Session-id={self.session}"},
            transports=["websocket"],
            socketio_path="/ws/socket.io",
            wait_timeout=20,
        )
        took = time.perf_counter() - begun
        self._ended.clear()
        await self._sio.emit("connection_successful")
        await self._ended.wait()
        return took

    async def turn(self, text: str) -> None:
        """One message, to the end of its turn."""
        self._ended.clear()
        self.tokens, self._asked = 0, time.perf_counter()
        message = {"id": str(uuid.uuid4()), "threadId": "", "name": "user", "type": "user_message"}
        message |= {"output": text, "createdAt": "2026-01-01T00:00:00Z"}
        await self._sio.emit("client_message", {"message": message, "fileReferences": []})
        await asyncio.wait_for(self._ended.wait(), 60)

    async def close(self) -> None:
        """Leaves."""
        await self._sio.disconnect()
