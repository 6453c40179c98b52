"""`discovery.kubernetes`: the endpoints of a Service, from the EndpointSlices that belong to it.

They are listed once and then watched from there, for a minute at a time: so a connection that is dead and
does not know it is noticed, and tokens and authorities are read anew. A stream that is cut is taken up where
it ended; only when the server has forgotten that place (410 Gone) is the list read again. Endpoints that are
ready take sessions; those that are not, or terminate, are in no list and so drain. An empty list is believed:
the server knows. What fails is tried again, after longer and longer pauses, and what was known stays. Nothing
is asked for but `list` and `watch` of `endpointslices` in one namespace.
https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import json
import random
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration, DiscoveryV1Api
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from proxy.config import BackendSettings
from proxy.config.sections import KubernetesSettings
from proxy.controlplane.discovery.source import Backends, Found, Source, UnusableError, backend_at

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its namespace and what it may show to the API server."""

_WINDOW = 60.0  # seconds that one watch lasts
_LATE = 10.0  # seconds that an answer, and the end of a watch, may be late

Slice = Mapping[str, Any]


class _GoneError(Exception):
    """The server no longer knows the changes since our version."""


class KubernetesSource(Source):
    """Watches the slices of one Service."""

    def __init__(self, settings: KubernetesSettings, found: Found, account: Path = ACCOUNT) -> None:
        super().__init__("kubernetes", found)
        self._settings = settings
        self._account = account
        self._slices: dict[str, Slice] = {}  # by name
        self._version: str | None = None  # of what is known, None: it has to be listed

    async def run(self) -> None:
        """List, then watch, until cancelled."""
        await self._keep(self._connect)

    async def _connect(self) -> None:
        try:
            await self._follow()
        except _GoneError:
            self._version = None
        except (UnusableError, ConfigException, aiohttp.ClientError, OSError) as error:
            self.fail(f"service {self._settings.service}: {_reason(error)}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._version = None
            self.fail(f"service {self._settings.service}: the answer makes no sense: {error}")

    async def _follow(self) -> None:
        """One connection to the server: a list, if there is none yet, and one watch."""
        configuration = Configuration()
        if self._settings.kubeconfig is not None:
            await load_kube_config(
                self._settings.kubeconfig, client_configuration=configuration, persist_config=False
            )
        else:
            load_incluster_config(  # type: ignore[no-untyped-call]
                configuration,
                token_filename=str(self._account / "token"),
                cert_filename=str(self._account / "ca.crt"),
            )
        async with ApiClient(configuration) as client:
            api = DiscoveryV1Api(client)
            if self._version is None:
                await self._list(api)
            await self._watch(api)

    async def _list(self, api: DiscoveryV1Api) -> None:
        async with await self._ask(api, _LATE) as response:
            answer = await response.json(content_type=None)
        self._slices = {item["metadata"]["name"]: item for item in answer["items"]}
        self._version = str(answer["metadata"]["resourceVersion"])
        self.tell(self._backends())

    async def _watch(self, api: DiscoveryV1Api) -> None:
        window = int(_WINDOW * random.uniform(0.8, 1.2))  # noqa: S311 - proxies do not come in step
        asked = {
            "watch": True,
            "resource_version": self._version,
            "allow_watch_bookmarks": True,
            "timeout_seconds": window,
        }
        async with await self._ask(api, window + _LATE, **asked) as response:
            self.tell(self._backends())  # it is well again, if it was not
            try:
                async for line in response.content:
                    self._change(json.loads(line))
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                return  # the stream was cut: the next one begins where it ended

    async def _ask(self, api: DiscoveryV1Api, within: float, **asked: Any) -> aiohttp.ClientResponse:
        response: Any = await api.list_namespaced_endpoint_slice(
            self._settings.namespace or self._own_namespace(),
            label_selector=f"kubernetes.io/service-name={self._settings.service}",
            _preload_content=False,  # the models refuse a slice without endpoints, which servers do send
            _request_timeout=aiohttp.ClientTimeout(total=within, sock_connect=_LATE),
            **asked,
        )
        assert isinstance(response, aiohttp.ClientResponse)
        if response.status == HTTPStatus.OK:
            return response
        async with response:
            if response.status == HTTPStatus.GONE:
                raise _GoneError
            raise UnusableError(f"{response.status} {_message(await response.text(errors='replace'))}")

    def _own_namespace(self) -> str:
        if self._settings.kubeconfig is not None:
            return "default"
        return (self._account / "namespace").read_text(encoding="utf-8").strip()

    def _change(self, event: Mapping[str, Any]) -> None:
        """Take one event of a watch."""
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            if item.get("code") == HTTPStatus.GONE:
                raise _GoneError
            self._version = None
            raise UnusableError(f"{item.get('code')} {item.get('message')}")
        if kind == "DELETED":
            self._slices.pop(item["metadata"]["name"], None)
        elif kind != "BOOKMARK":  # ADDED or MODIFIED
            self._slices[item["metadata"]["name"]] = item
        self._version = str(item["metadata"]["resourceVersion"])
        if kind != "BOOKMARK":
            self.tell(self._backends())

    def _backends(self) -> Backends:
        """Those that are ready; a pod of two address families, or in two slices, is one backend."""
        found: dict[str, BackendSettings] = {}
        for family in ("IPv4", "IPv6"):
            for item in self._slices.values():
                if item["addressType"] == family:
                    for backend in self._ready(item):
                        found.setdefault(backend.name, backend)
        return tuple(sorted(found.values(), key=lambda backend: backend.name))

    def _ready(self, item: Slice) -> Iterator[BackendSettings]:
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            # Not told means ready; a Service may have those that terminate published as ready.
            if conditions.get("ready") is False or conditions.get("terminating"):
                continue
            target = endpoint.get("targetRef") or {}
            name = target["name"] if target.get("kind") == "Pod" else ""
            yield backend_at(endpoint["addresses"][0], self._port(item), name)

    def _port(self, item: Slice) -> int:
        wanted = self._settings.port
        ports = [port for port in item.get("ports") or () if wanted in {None, port.get("name")}]
        if len(ports) != 1:
            names = ", ".join(str(port.get("name") or port["port"]) for port in item.get("ports") or ())
            raise UnusableError(f"discovery.kubernetes.port must name one of its ports: {names or 'none'}")
        return int(ports[0]["port"])


def _message(text: str) -> str:
    """What an API server says of a request that it refuses."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, LookupError, TypeError):
        return text[:200]


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the API server did not answer in time"
    return str(error) or type(error).__name__
