"""An API server's endpointslices of one namespace: the list, the watch, and what a real one does wrong.

It keeps the changes since it was last compacted, as a real one does: a watch begins at any version that it
still knows, and one that begins earlier is told 410 Gone. No cluster runs where these tests do.
"""

import asyncio
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

from tests.support.processes import free_port

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"


def endpoint(pod: str, address: str, **conditions: bool | None) -> dict[str, Any]:
    """One endpoint as a slice has it; it is ready if nothing else is told."""
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False} | conditions,
        "nodeName": "node-1",
        "targetRef": {"kind": "Pod", "name": pod, "namespace": "chat", "uid": f"uid-of-{pod}"},
    }


def of_service(
    name: str, *endpoints: dict[str, Any], family: str = "IPv4", ports: dict[str, int] | None = None
) -> dict[str, Any]:
    """A slice of the service `chainlit`; without endpoints they are null, as a real server has it."""
    told = [{"name": key, "port": port, "protocol": "TCP"} for key, port in (ports or {"http": 8000}).items()]
    return {
        "metadata": {
            "name": name,
            "namespace": "chat",
            "labels": {"kubernetes.io/service-name": "chainlit"},
        },
        "addressType": family,
        "endpoints": list(endpoints) or None,
        "ports": told,
    }


class ApiServer:
    """Serves while it is entered; a test changes its slices and misbehaves through it."""

    def __init__(self, pair: dict[str, str] | None = None) -> None:
        """With the `pair` of a certificate it speaks TLS."""
        self.port = free_port()
        self.asked: list[dict[str, str]] = []  # the query of each request, with its Authorization
        self.refusal: tuple[int, str] | None = None  # every request is answered so
        self._pair = pair
        self._version = 100
        self._slices: dict[str, dict[str, Any]] = {}
        self._history: list[tuple[int, dict[str, Any]]] = []
        self._oldest = 0  # versions before it are forgotten
        self._changed = asyncio.Condition()
        self._watches: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None

    @property
    def lists(self) -> int:
        """How many times the list was asked for."""
        return sum("watch" not in query for query in self.asked)

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def kubeconfig(self, folder: Path) -> Path:
        """A file that leads here."""
        context = {"cluster": "test", "user": "proxy"}
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "proxy", "user": {"token": "a-token"}}],
            "contexts": [{"name": "test", "context": context}],
        }
        file = folder / "kubeconfig"
        file.write_text(yaml.safe_dump(told))
        return file

    async def put(self, *slices: dict[str, Any]) -> None:
        """Add or change slices, and tell those who watch."""
        for item in slices:
            name = item["metadata"]["name"]
            await self._happen("MODIFIED" if name in self._slices else "ADDED", item)
            self._slices[name] = item

    async def delete(self, name: str) -> None:
        """Take a slice away."""
        await self._happen("DELETED", self._slices.pop(name))

    async def bookmark(self) -> None:
        """Tell those who watch how far they are."""
        await self._happen("BOOKMARK", {"metadata": {"creationTimestamp": None}})

    async def _happen(self, kind: str, item: dict[str, Any]) -> None:
        self._version += 1
        item["kind"], item["apiVersion"] = "EndpointSlice", "discovery.k8s.io/v1"
        item["metadata"]["resourceVersion"] = str(self._version)
        async with self._changed:
            self._history.append((self._version, json.loads(json.dumps({"type": kind, "object": item}))))
            self._changed.notify_all()

    def compact(self) -> None:
        """Forget every change until now; a version before the next one is gone."""
        self._version += 1
        self._oldest = self._version
        self._history.clear()

    def cut(self) -> None:
        """Cut the streams in the middle; there has to be one."""
        assert self._watches
        self._cut()

    def _cut(self) -> None:
        for transport in self._watches:
            transport.abort()
        self._watches.clear()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(PATH, self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if self._pair is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self._pair["cert"], self._pair["key"])
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cut()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            {**request.query, "authorization": request.headers.get("Authorization", ""), "path": request.path}
        )
        if self.refusal is not None:
            code, message = self.refusal
            return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)
        if "watch" in request.query:
            return await self._watch(request)
        items = list(self._slices.values())
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response({"kind": "EndpointSliceList", "metadata": metadata, "items": items})

    def _after(self, at: int) -> list[tuple[int, dict[str, Any]]]:
        return [(version, event) for version, event in self._history if version > at]

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        at = int(request.query["resourceVersion"])
        if at < self._oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        transport = request.transport
        assert transport is not None
        self._watches.add(transport)
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                while True:
                    for version, event in self._after(at):
                        await response.write(json.dumps(event).encode() + b"\n")
                        at = version
                    async with self._changed:
                        while not self._after(at):
                            await self._changed.wait()
        except (TimeoutError, ConnectionError):
            pass
        finally:
            self._watches.discard(transport)
        return response
