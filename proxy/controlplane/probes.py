"""Active probes: one task per backend asks it at intervals, and the fleet judges by the answers.

A probe opens a new connection each time, so that a refused one is seen. Probes come faster while the last
answer speaks against the verdict, at once when traffic met trouble (`suspect`), and never in step with
those of other backends or proxies (jitter).
"""

import asyncio
import errno
import logging
import random
from collections.abc import Callable
from ssl import SSLContext
from time import monotonic
from typing import TypedDict

import aiohttp
from engineio import packet

from proxy import net
from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Observation
from proxy.config import HealthSettings, HealthType
from proxy.errors import ConnectRefused, ConnectTimeout, HandshakeFailed, ProxyError

log = logging.getLogger("proxy.probes")

_JITTER = 0.1  # of the interval, each way
_FASTER = 4  # times, while a verdict may be about to change
_SOONEST = 0.2  # seconds between two probes of one backend, whatever traffic suspects


class _Secure(TypedDict, total=False):
    """The arguments of a request that tell aiohttp of TLS."""

    ssl: SSLContext
    server_hostname: str


class Prober:
    """Probes every backend of a fleet; created by the app."""

    def __init__(
        self,
        fleet: Fleet,
        settings: HealthSettings,
        socketio_path: str,
        probed: Callable[[Backend, float], None] = lambda _backend, _seconds: None,
    ) -> None:
        """`probed(backend, seconds)` is told how long each answered probe took."""
        self._fleet = fleet
        self._settings = settings
        self._socketio_path = socketio_path
        self._probed = probed
        # A replica answers 404 where a root path is set in an environment that is not ours to read.
        self.good_below = 400
        self.met_all = asyncio.Event()  # set when every backend was probed once
        self._wake: dict[Backend, asyncio.Event] = {}
        self._http: aiohttp.ClientSession | None = None  # set while it runs, as the tasks are
        self._tasks: asyncio.TaskGroup | None = None
        self._told: dict[Backend, str] = {}  # what was last said of a backend's TLS

    async def run(self) -> None:
        """Probe all backends of the fleet until cancelled."""
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http,
            asyncio.TaskGroup() as tasks,
        ):
            self._http, self._tasks = http, tasks
            for backend in self._fleet:
                self.watch(backend)
            await asyncio.Event().wait()  # the fleet may be empty for a while

    def watch(self, backend: Backend) -> None:
        """Probe a backend that has come to the fleet, until it leaves."""
        if self._tasks is not None and self._http is not None:
            self._wake[backend] = asyncio.Event()
            self._tasks.create_task(self._watch(backend, self._http))

    def change(self, settings: HealthSettings, socketio_path: str) -> None:
        """Probe by other rules from the next probe on, which comes at once."""
        self._settings, self._socketio_path = settings, socketio_path
        for backend in self._fleet:
            self.suspect(backend)

    def suspect(self, backend: Backend) -> None:
        """Traffic met trouble at a backend: probe it now."""
        event = self._wake.get(backend)
        if event is not None:
            event.set()

    async def _watch(self, backend: Backend, http: aiohttp.ClientSession) -> None:
        while not backend.gone:
            path = backend.path
            if path:
                await self._watch_socket(backend, path)
            else:
                await self._watch_by(backend, http, path)
        self._wake.pop(backend, None)
        self._told.pop(backend, None)

    async def _watch_socket(self, backend: Backend, path: str) -> None:
        """A unix socket needs a connector of its own."""
        async with aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path, force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as http:
            await self._watch_by(backend, http, path)

    async def _watch_by(self, backend: Backend, http: aiohttp.ClientSession, path: str) -> None:
        """Until the backend leaves, or is no longer at the socket `path` (nor at a port, if that is "")."""
        while not backend.gone and backend.path == path:
            started = monotonic()
            observation = await self._probe(backend, http)
            now = monotonic()
            if observation is not None:
                if observation is Observation.ANSWERED:
                    self._probed(backend, now - started)
                self._fleet.observe(backend, observation, now)
            if not self.met_all.is_set() and all(other.health.met for other in self._fleet):
                self.met_all.set()
            await self._pause(backend)

    @property
    def _shortest_pause(self) -> float:
        return min(_SOONEST, self._settings.interval / (2 * _FASTER))

    async def _pause(self, backend: Backend) -> None:
        health = backend.health
        settings, shortest = self._settings, self._shortest_pause
        if health.in_doubt:
            await asyncio.sleep(shortest)
            return
        interval = health.pause(monotonic(), settings.interval, settings.timeout, shortest)
        if health.in_transition or health.last_answer is None:
            interval = max(min(interval, _SOONEST), interval / _FASTER)
        event = self._wake[backend]
        event.clear()
        soonest = min(_SOONEST, interval)
        await asyncio.sleep(soonest)
        try:
            async with asyncio.timeout(interval * random.uniform(1 - _JITTER, 1 + _JITTER) - soonest):  # noqa: S311
                await event.wait()
        except TimeoutError:
            pass

    async def _probe(self, backend: Backend, http: aiohttp.ClientSession) -> Observation | None:
        """Probe once; None: it says nothing of the backend, this machine is out of something."""
        try:
            settings = self._settings
            allowed = backend.health.probe_timeout(
                monotonic(), settings.timeout, settings.interval, self._shortest_pause
            )
            async with asyncio.timeout(allowed):
                observation = await self._ask(backend, http)
            self._told.pop(backend, None)
            return observation
        except TimeoutError:
            return Observation.SILENT
        except (aiohttp.ClientSSLError, HandshakeFailed) as error:
            self._tell(backend, str(getattr(error, "certificate_error", error)))
            return Observation.REFUSED
        except aiohttp.ClientConnectorError as error:
            if error.os_error.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL):
                log.warning("cannot probe %s: %s", backend.name, error.os_error.strerror)
                return None
            return Observation.REFUSED
        except (aiohttp.ClientError, OSError) as error:
            log.debug("probe of %s: %s", backend.name, error)
            return Observation.SILENT
        except Exception:  # a border: nothing that a backend says may end the proxy
            log.exception("probe of %s", backend.name)
            return Observation.FAILED

    def _tell(self, backend: Backend, trouble: str) -> None:
        """Say once what is wrong with a backend's TLS, until it is something else."""
        if self._told.get(backend) != trouble:
            self._told[backend] = trouble
            log.warning("no TLS with backend %s: %s", backend.name, trouble)

    async def _ask(self, backend: Backend, http: aiohttp.ClientSession) -> Observation | None:
        kind = self._settings.type
        if kind is HealthType.NONE:
            return Observation.ANSWERED  # only traffic tells, and what it told is forgiven after an interval
        if kind is HealthType.TCP:
            return await self._knock(backend)
        if kind is HealthType.ENGINEIO:
            return await self._shake_hands(backend, http)
        async with http.get(
            _address(backend) + self._settings.path, allow_redirects=False, **_secure(backend)
        ) as response:
            await response.read()
            return Observation.ANSWERED if response.status < self.good_below else Observation.FAILED

    async def _knock(self, backend: Backend) -> Observation | None:
        try:
            await net.knock(backend.host, backend.port, self._settings.timeout, backend.tls, backend.path)
        except HandshakeFailed:
            raise
        except ConnectRefused:
            return Observation.REFUSED
        except ConnectTimeout:
            return Observation.SILENT
        except ProxyError:
            return None
        return Observation.ANSWERED

    async def _shake_hands(self, backend: Backend, http: aiohttp.ClientSession) -> Observation:
        """Open an Engine.IO session by polling and close it again."""
        url = f"{_address(backend)}{self._socketio_path}/?EIO=4&transport=polling"
        async with http.get(url, **_secure(backend)) as response:
            sid = _opened_sid(await response.text(errors="replace"))
        if response.status != 200 or sid is None:
            return Observation.FAILED
        close = packet.Packet(packet.CLOSE).encode()
        async with http.post(f"{url}&sid={sid}", data=close, **_secure(backend)) as response:
            await response.read()
        return Observation.ANSWERED

    def __repr__(self) -> str:
        return f"<Prober {self._settings.type.value} of {len(self._wake)} backends>"


def _address(backend: Backend) -> str:
    """The url without its path; what is asked for by a socket is a name for this machine."""
    return "http://localhost" if backend.path else backend.url


def _secure(backend: Backend) -> _Secure:
    """How a request to a backend speaks TLS."""
    tls = backend.tls
    return {} if tls is None else {"ssl": tls.context, "server_hostname": tls.server_name}


def _opened_sid(answer: str) -> str | None:
    """The sid that a handshake's answer mints, None: it is no such answer."""
    try:
        opened = packet.Packet(encoded_packet=answer.split("\x1e", 1)[0])
    except (ValueError, RecursionError):
        return None
    sid = opened.data.get("sid") if isinstance(opened.data, dict) else None
    return sid if opened.packet_type == packet.OPEN and isinstance(sid, str) else None
