"""The part of a Docker engine's API that tells of containers, on a unix socket; it starts none.

Written after https://docs.docker.com/reference/api/engine/version/v1.47/: filters choose as the engine's do,
and events are told from a moment on that lies in the past.
"""

import asyncio
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

VERSION = "1.47"


def container(
    name: str, address: str = "", *, state: str = "running", networks: dict[str, str] | None = None
) -> dict[str, Any]:
    """One container as the engine lists it, with the label of a compose service."""
    told = networks if networks is not None else {"chat_default": address}
    return {
        "Id": f"id-of-{name}",
        "Names": [f"/{name}"],
        "State": state,
        "Labels": {"com.docker.compose.service": "chainlit", "chat": ""},
        "NetworkSettings": {"Networks": {key: {"IPAddress": value} for key, value in told.items()}},
    }


class Engine:
    """Serves while it is entered; a test starts and ends containers through it."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "engine.sock"
        self.containers: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []  # method and path of every request
        self.refusal = ""  # every list is answered with this
        self._events: list[dict[str, Any]] = []
        self._happened = asyncio.Condition()
        self._streams: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None

    @property
    def streams(self) -> int:
        """How many streams of events are open."""
        return len(self._streams)

    async def start(self, *containers: dict[str, Any]) -> None:
        """Have containers run, or be other than they were."""
        for item in containers:
            self.containers[item["Names"][0]] = item
            await self._tell("container", "start")

    async def end(self, name: str) -> None:
        """A container's process has ended."""
        self.containers[f"/{name}"]["State"] = "exited"
        await self._tell("container", "die")

    async def _tell(self, kind: str, action: str) -> None:
        async with self._happened:
            self._events.append({"Type": kind, "Action": action, "time": int(time.time())})
            self._happened.notify_all()

    def cut(self) -> None:
        """Cut the streams of events in the middle; there has to be one."""
        assert self._streams
        self._cut()

    def _cut(self) -> None:
        for transport in self._streams:
            transport.abort()
        self._streams.clear()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/version", self._version)
        app.router.add_get(f"/v{VERSION}/containers/json", self._list)
        app.router.add_get(f"/v{VERSION}/events", self._stream)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cut()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _version(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        return web.json_response({"ApiVersion": VERSION, "Version": "27.0.0"})

    async def _list(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        if self.refusal:
            return web.json_response({"message": self.refusal}, status=500)
        filters = json.loads(request.query["filters"])
        (label,) = filters["label"]
        key, _, value = label.partition("=")
        return web.json_response(
            [
                item
                for item in self.containers.values()
                if item["State"] in filters["status"]
                and key in item["Labels"]
                and (not value or item["Labels"][key] == value)
            ]
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        filters = json.loads(request.query["filters"])
        at = 0
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        transport = request.transport
        assert transport is not None
        self._streams.add(transport)
        try:
            while True:
                async with self._happened:
                    while len(self._events) <= at:
                        await self._happened.wait()
                for event in self._events[at:]:
                    at += 1
                    if event["time"] < int(request.query["since"]):
                        continue
                    if event["Type"] in filters["type"] and event["Action"] in filters["event"]:
                        await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            self._streams.discard(transport)
        return response
