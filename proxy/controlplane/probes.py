"""Active probes: one task per backend asks it at intervals, and the fleet judges by the answers.

A probe opens a new connection each time, so that a refused one is seen. Probes come faster while the last
answer speaks against the verdict, and while a restart is waited for, which would else happen unseen between
two; at once when traffic met trouble (`suspect`); and never in step with those of other backends or proxies
(jitter). What a probe that was no good one met is the verdict's reason.
"""

import asyncio
import hmac
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from secrets import token_hex
from time import monotonic
from typing import NamedTuple
from urllib.parse import quote

from pydantic import SecretStr

from proxy import net
from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import Observation
from proxy.borders import Where, fault
from proxy.config import Config
from proxy.config.values import statuses
from proxy.errors import ConnectRefused, ConnectTimeout, ProxyError, Side, UpstreamTimeout
from proxy.wire.head import ResponseHead

log = logging.getLogger("proxy.probes")

_JITTER = 0.1  # of the interval, each way
_FASTER = 4  # times, while a verdict may be about to change
_ERRORS = 500  # statuses from here on are errors of the backend
_RESTART = 0.5  # seconds between two probes of one that is to be restarted: Chainlit takes 1.2 s to start
_SOONEST = 0.2  # seconds between two probes of one backend, whatever traffic suspects

_CHALLENGE, _PROOF = "X-Chainlit-Proxy-Challenge", b"x-chainlit-proxy-proof"  # as in proxy/sessions/proof
_CONTEXT = b"chainlit-proxy health\n"

Ask = Callable[[Backend, bytes, bytes, float], Awaitable[tuple[ResponseHead, bytes]]]
"""(backend, method, whole request, timeout in seconds) -> (head, body); raises ProxyError."""


class _Met(NamedTuple):
    """What one probe met."""

    observation: Observation
    reason: str = ""  # why it is no good one; silence needs none


_GOOD = _Met(Observation.ANSWERED)
_SILENCE = _Met(Observation.SILENT)


class Prober:
    """Probes every backend of a fleet; created by the app."""

    def __init__(
        self,
        fleet: Fleet,
        config: Config,
        ask: Ask,
        probed: Callable[[Backend, Observation, float], None] = lambda _backend, _met, _seconds: None,
        stood: Callable[[float], float] = lambda _now: 0.0,
    ) -> None:
        """`ask` opens a new connection each time; `probed(backend, met, seconds)` is told of each probe.

        `stood(now)` tells how many seconds this process stood still so far.
        """
        self._fleet = fleet
        self._take(config)
        self._ask_backend = ask
        self._probed = probed
        self._stood = stood
        # A replica answers 404 where a root path is set in an environment that is not ours to read.
        self.own_replicas = False
        self.awaits_restart: Callable[[Backend], bool] = lambda _: False  # set by who knows
        self.met_all = asyncio.Event()  # set when every backend was probed once
        self._wake: dict[Backend, asyncio.Event] = {}
        self._tasks: asyncio.TaskGroup | None = None  # set while it runs

    async def run(self) -> None:
        """Probe all backends of the fleet until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for backend in self._fleet:
                self.watch(backend)
            await asyncio.Event().wait()  # the fleet may be empty for a while

    def watch(self, backend: Backend) -> None:
        """Probe a backend that has come to the fleet, until it leaves."""
        if self._tasks is not None:
            self._wake[backend] = asyncio.Event()
            self._tasks.create_task(self._watch(backend))

    def configure(self, config: Config) -> None:
        """Probe by other rules from the next probe on, which then comes at once."""
        if (config.health, config.socketio_path[0]) == (self._settings, self._socketio_path):
            return
        self._take(config)
        for backend in self._fleet:
            self.suspect(backend)

    def _take(self, config: Config) -> None:
        self._settings, self._good = config.health, statuses(config.health.status)
        self._socketio_path = config.socketio_path[0]

    def suspect(self, backend: Backend) -> None:
        """Traffic met trouble at a backend: probe it now."""
        event = self._wake.get(backend)
        if event is not None:
            event.set()

    async def _watch(self, backend: Backend) -> None:
        while not backend.gone:
            try:
                await self._round(backend)
            except Exception as error:
                fault(Where.PROBE, error, backend.name)
                await asyncio.sleep(_SOONEST)
        self._wake.pop(backend, None)

    async def _round(self, backend: Backend) -> None:
        """One probe, and the pause behind it."""
        started = monotonic()
        stood = self._stood(started)
        met = await self._probe(backend)
        now = monotonic()
        if self._stood(now) != stood and met is _SILENCE:
            met = None  # we were late ourselves
        if met is not None:
            self._probed(backend, met.observation, now - started)
            if met is _GOOD:
                self._fleet.met(backend, net.last_address(backend.host))
            self._fleet.observe(backend, met.observation, now, met.reason)
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
        if settings.type != "none" and self.awaits_restart(backend):
            interval = min(interval, _RESTART)
        event = self._wake[backend]
        event.clear()
        soonest = min(_SOONEST, interval)
        await asyncio.sleep(soonest)
        try:
            async with asyncio.timeout(interval * random.uniform(1 - _JITTER, 1 + _JITTER) - soonest):  # noqa: S311
                await event.wait()
        except TimeoutError:
            pass

    async def _probe(self, backend: Backend) -> _Met | None:
        """Probe once; None: it says nothing of the backend, this machine is out of something."""
        try:
            settings = self._settings
            allowed = backend.health.probe_timeout(
                monotonic(), settings.timeout, settings.interval, self._shortest_pause
            )
            backend.asked(monotonic())
            try:
                async with asyncio.timeout(allowed):
                    met = await self._ask(backend)
            except BaseException:
                backend.given_up()
                raise
            backend.answered(monotonic())
            return met
        except (TimeoutError, ConnectTimeout, UpstreamTimeout):
            return _SILENCE
        except ConnectRefused as error:
            return _Met(Observation.REFUSED, error.reason)
        except ProxyError as error:
            if error.side is Side.INTERNAL:
                log.warning("cannot probe %s: %s", backend.name, error.reason)
                return None
            log.debug("probe of %s: %s", backend.name, error.reason)
            return _Met(Observation.SILENT, error.reason)
        except Exception as error:
            fault(Where.PROBE, error, backend.name)
            return _Met(Observation.FAILED, "its answer to the probe could not be read")

    async def _ask(self, backend: Backend) -> _Met:
        settings = self._settings
        if settings.type == "none":
            return _GOOD  # only traffic tells, and what it told is forgiven after an interval
        if settings.type == "tcp":
            await net.knock(backend.host, backend.port, settings.timeout, backend.tls, backend.path)
            return _GOOD
        if settings.type == "engineio":
            return await self._shake_hands(backend)
        secrets = () if self.own_replicas else settings.secret or ()
        challenge = token_hex(16) if secrets else ""
        line = f"{_CHALLENGE}: {challenge}\r\n" if challenge else ""
        head, _ = await self._request(backend, b"GET", settings.path, more=line)
        if secrets and not _is_proved(secrets, challenge, head.fields.get(_PROOF) or b""):
            return _Met(Observation.REFUSED, f"what answers at {backend.url} does not know health.secret")
        status = head.status
        return _GOOD if self._is_good(status) else _bad(status, f"{status} to GET {settings.path}")

    def _is_good(self, status: int) -> bool:
        if self.own_replicas and "status" not in self._settings.model_fields_set:
            return status < _ERRORS
        return status in self._good

    async def _shake_hands(self, backend: Backend) -> _Met:
        """Open an Engine.IO session by polling and close it again."""
        from engineio import packet  # noqa: PLC0415 - as in _opened_sid

        path = self._socketio_path
        target = f"{path}/?EIO=4&transport=polling"
        head, body = await self._request(backend, b"GET", target)
        status = head.status
        if status != 200:
            return _bad(status, f"{status} to the Engine.IO handshake at {path}")
        sid = _opened_sid(body.decode(errors="replace"))
        if sid is None:
            return _bad(status, f"no Engine.IO handshake in the answer at {path}")
        close = packet.Packet(packet.CLOSE).encode()
        await self._request(backend, b"POST", f"{target}&sid={quote(sid)}", close.encode())
        return _GOOD

    async def _request(
        self, backend: Backend, method: bytes, target: str, body: bytes = b"", more: str = ""
    ) -> tuple[ResponseHead, bytes]:
        host = self._settings.host or backend.authority
        head = (
            f"{target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: chainlit-proxy\r\nConnection: close\r\n{more}"
        )
        if method == b"POST":
            head += f"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {len(body)}\r\n"
        message = b"%b %b\r\n%b" % (method, head.encode(), body)
        return await self._ask_backend(backend, method, message, self._settings.timeout)

    def __repr__(self) -> str:
        return f"<Prober {self._settings.type} of {len(self._wake)} backends>"


def _is_proved(secrets: Sequence[SecretStr], challenge: str, proof: bytes) -> bool:
    """Whether it was made from the challenge with one of the secrets, of which it may hold several hashes."""
    wanted = [
        hmac.new(secret.get_secret_value().encode(), _CONTEXT + challenge.encode(), "sha256").hexdigest()
        for secret in secrets
    ]
    given = [one.strip() for one in proof.split(b",")]
    return any(hmac.compare_digest(one, own.encode()) for one in given for own in wanted)


def _bad(status: int, reason: str) -> _Met:
    """A process that answers below 500 is there, whatever it thinks of the probe."""
    return _Met(Observation.DENIED if status < _ERRORS else Observation.FAILED, reason)


def _opened_sid(answer: str) -> str | None:
    """The sid that a handshake's answer mints, None: it is no such answer."""
    # Imported late: only this kind of probe needs the package, which takes a while to load.
    from engineio import packet  # noqa: PLC0415

    try:
        opened = packet.Packet(encoded_packet=answer.split("\x1e", 1)[0])
    except (ValueError, RecursionError):
        return None
    sid = opened.data.get("sid") if isinstance(opened.data, dict) else None
    return sid if opened.packet_type == packet.OPEN and isinstance(sid, str) else None
