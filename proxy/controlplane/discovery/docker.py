"""`discovery.docker`: the containers that bear a label, from the engine's socket.

They are listed anew whenever the engine tells of a container that started, ended or changed its networks, and
every half minute besides. Containers that run are backends, paused ones too: a silent backend is degraded,
not gone. An empty list is believed: the engine knows. What fails is tried again, after longer and longer
pauses, and what was known stays. Nothing is asked of the engine but lists and events.
https://docs.docker.com/reference/api/engine/
"""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.channel import ChannelSubscriber
from aiodocker.exceptions import DockerError

from proxy.config import BackendSettings
from proxy.config.sections import DockerSettings
from proxy.controlplane.discovery.source import Backends, Found, Source, UnusableError, backend_at

_EVERY = 30.0  # seconds between two lists at most
_LATE = 10.0  # seconds that an answer may take
_OVERLAP = 2  # seconds before the first list from which events are told

# What may change the list. Without a choice every health check of a container would be told.
_EVENTS = {
    "type": ["container", "network"],
    "event": ["start", "die", "destroy", "rename", "connect", "disconnect"],
}


class DockerSource(Source):
    """Follows the containers of one label."""

    def __init__(self, settings: DockerSettings, found: Found) -> None:
        super().__init__("docker", found)
        self._settings = settings

    async def run(self) -> None:
        """List whenever something happens, until cancelled."""
        await self._keep(self._connect)

    async def _connect(self) -> None:
        try:
            await self._follow()
        except (UnusableError, DockerError, aiohttp.ClientError, OSError) as error:
            self.fail(_reason(error))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self.fail(f"the engine's answer makes no sense: {error}")

    async def _follow(self) -> None:
        """One stream of events: return when it was cut."""
        async with Docker(
            url=f"unix://{self._settings.socket}", timeout=aiohttp.ClientTimeout(total=_LATE)
        ) as docker:
            events = docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]
            since = int(time.time()) - _OVERLAP  # what happens while the stream is opened is told too
            told = docker.events.run(timeout=None, since=since, filters=json.dumps(_EVENTS))
            listening = asyncio.create_task(told)
            try:
                self.tell(await self._list(docker))
                while await _something_happened(events):
                    self.tell(await self._list(docker))
            finally:
                listening.cancel()
                await asyncio.wait([listening])
            if not listening.cancelled() and (error := listening.exception()):
                raise error

    async def _list(self, docker: Docker) -> Backends:
        chosen = {"label": [self._settings.label], "status": ["running", "paused"]}
        containers = await docker.containers.list(filters=json.dumps(chosen))
        return tuple(sorted(self._backends(containers), key=lambda backend: backend.name))

    def _backends(self, containers: Iterable[Any]) -> Iterable[BackendSettings]:
        for container in containers:
            name = str(container["Names"][0]).removeprefix("/")
            address = self._address(name, container["NetworkSettings"]["Networks"])
            if address:  # one that has just started may have none yet
                yield backend_at(address, self._settings.port, name)

    def _address(self, name: str, networks: Mapping[str, Mapping[str, Any]]) -> str:
        wanted = self._settings.network
        if wanted is None and len(networks) > 1:
            known = ", ".join(sorted(networks))
            raise UnusableError(
                f"container {name} is in several networks, discovery.docker.network must name one: {known}"
            )
        network = networks.get(wanted, {}) if wanted else next(iter(networks.values()), {})
        return str(network.get("IPAddress") or network.get("GlobalIPv6Address") or "")


async def _something_happened(events: ChannelSubscriber) -> bool:
    """Wait for an event, or for a while; False: there will be no more. Events that came together are one."""
    try:
        async with asyncio.timeout(_EVERY):
            event = await events.queue.get()
    except TimeoutError:
        return True
    while event is not None and not events.queue.empty():
        event = events.queue.get_nowait()
    return event is not None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the engine did not answer in time"
    return str(error.message if isinstance(error, DockerError) else error) or type(error).__name__
