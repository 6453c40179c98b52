"""The link over the real `socket.io-client`: one Node.js process that holds many clients.

Commands go to its standard input and reports come from its standard output, one JSON object a line.
The library, its back-off and its order of packets are those of Chainlit's own page.
"""

import asyncio
import base64
import itertools
import json
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Self

from tests.js.install import node_path
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

PROGRAM = Path(__file__).parents[1] / "js" / "client.mjs"
COMMAND_TIMEOUT = 60
LINE_LIMIT = 16 * 1024 * 1024


class Node:
    """The Node.js process; owned by `Clients`."""

    def __init__(self) -> None:
        self.links: dict[str, JsLink] = {}
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            node_path(), str(PROGRAM), stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process
        assert self._process.stdin
        assert self._reader
        self._process.stdin.close()  # the program ends with its input
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def call(self, operation: str, client: str, **arguments: Any) -> Any:
        """Runs one operation in the process; its result."""
        assert self._process
        assert self._process.stdin
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "op": operation, "client": client, **arguments}, default=_bytes)
        self._process.stdin.write(line.encode() + b"\n")
        return await asyncio.wait_for(answer, COMMAND_TIMEOUT)

    async def _read(self) -> None:
        """Hands each report to the caller or the link that it is for."""
        assert self._process
        assert self._process.stdout
        async for line in self._process.stdout:
            report = json.loads(line)
            if "id" in report:
                answer = self._waiting.pop(report["id"])
                if answer.done():
                    continue
                if "error" in report:
                    answer.set_exception(RuntimeError(report["error"]))
                else:
                    answer.set_result(report.get("result"))
            elif link := self.links.get(report["client"]):
                link.take(report)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(RuntimeError("the Node.js process ended"))


def _bytes(value: bytes) -> dict[str, str]:
    """As the program reads what JSON does not know."""
    return {"base64": base64.b64encode(value).decode()}


class JsLink(Link):
    """One client inside the Node.js process."""

    def __init__(self, url: str, kind: Kind, browser: Browser, delay: float, node: Node, name: str) -> None:
        super().__init__(url, kind, browser, delay)
        self._node, self._name = node, name
        node.links[name] = self

    def take(self, report: dict[str, Any]) -> None:
        """Keeps or passes on one report of the process."""
        if "exchange" in report:
            self.exchanges.append(Exchange(report["t"], **report["exchange"]))
        else:
            self.listener(Event(report["t"], report["event"], report.get("data")))

    async def open(self, auth: dict[str, Any]) -> None:
        """Connects in the background, and tries again until it works."""
        await self._node.call(
            "open", self._name, auth=auth, path=SOCKET_PATH, delay=self.delay, **self._identity()
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "transports": self.kind.transports.value,
            "jar": self.browser.name if self.browser.cookies else None,
        }

    async def emit(self, event: str, data: Any = None) -> None:
        """Sends an event; kept by the library while the connection is down."""
        await self._node.call("emit", self._name, event=event, data=data)

    async def request(self, request: Request) -> Answer:
        """Makes an HTTP request."""
        upload = request.upload and {"name": request.upload.name, "content": request.upload.content}
        result = await self._node.call(
            "request",
            self._name,
            method=request.method,
            path=request.path,
            json=request.json,
            upload=upload,
            headers=request.headers,
            timeout=REQUEST_TIMEOUT,
            **self._identity(),
        )
        return Answer(result["status"], result["body"])

    async def cut(self) -> None:
        """Destroys all sockets of the client under the library."""
        await self._node.call("cut", self._name)

    async def close(self) -> None:
        """Ends the client."""
        await self._node.call("close", self._name)
        self._node.links.pop(self._name, None)
