"""An instance whose app blocked its event loop gives up nobody for that when it wakes.

Three clocks run on while the loop stands, and are due before what came meanwhile is read: python-engineio
gives up a client that has not answered a ping within `ping_timeout`, and one of which no packet came for
`ping_interval + ping_timeout` (engineio/async_socket.py: check_ping_timeout; poll and _websocket_handler);
uvicorn closes a websocket whose pong is late. Here the first counts only the time in which this loop ran, and
does the duty of the other two: a client that has vanished is given up when it was before. What the instance
itself asks, as its store, has its time by `within`.

Knows nothing of Chainlit, and changes nothing that clients see.
"""

import asyncio
import importlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import wraps
from time import monotonic
from typing import Any

from .ending import SOCKETS, leave_polls

BEAT = 0.5  # seconds between two looks at the clock
LATE = 1.5  # seconds between two that are late: a busy loop takes less
BEATS = 10  # of a wait of our own: of each of them no more is counted, however late it comes
STANDS = 4  # times as long may such a wait last, if the loop stands again and again
NEVER = 1e6  # seconds: 11 days, for waits that have an end for other reasons
LONG_AGO = 1.0  # in seconds since the epoch: over for any timeout, and for `NEVER`
NAMES = {  # what python-engineio's methods use, and so what is known of them
    "check_ping_timeout": {"last_ping", "ping_timeout", "close"},
    "poll": {"wait_for", "queue", "ping_timeout"},
    "_send_ping": {"last_ping", "ping_interval", "send"},
    "_websocket_handler": {"wait_for", "ping_timeout", "upgraded"},
}

log = logging.getLogger("chainlit_proxy.sessions")
_MARK = "_chainlit_proxy_patience"  # on what replaces uvicorn's


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """As `asyncio.timeout`, of the time in which this loop runs: what came while it stood is read first."""
    loop = asyncio.get_running_loop()
    latest = loop.time() + STANDS * seconds
    timer: asyncio.TimerHandle
    async with asyncio.timeout(None) as limit:

        def beat(left: int) -> None:
            nonlocal timer
            if left and loop.time() < latest:
                timer = loop.call_later(seconds / BEATS, beat, left - 1)
            else:
                limit.reschedule(loop.time())

        timer = loop.call_later(seconds / BEATS, beat, BEATS - 1)
        try:
            yield
        finally:
            timer.cancel()


async def wait(task: asyncio.Task[Any], seconds: float) -> None:
    """Until it is done, or the time is up `within` that; it goes on all the same."""
    with suppress(TimeoutError):
        async with within(seconds):
            await asyncio.wait({task})


class RunningTime:
    """How long an event loop has run; it looks at the clock every `BEAT` seconds, and when it is asked."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen = clock()
        self._stood = 0.0  # seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<RunningTime {self._stood:.1f} s stood>"

    def watch(self) -> None:
        """Look at the clock from now on, in the loop that runs; called for each client."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._seen = loop, self._clock()
            loop.call_later(BEAT, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            self.now()
            loop.call_later(BEAT, self._look, loop)

    def now(self) -> float:
        """The time, in seconds, that stands while the loop does; in doubt for one beat more."""
        now = self._clock()
        gap = now - self._seen
        self._seen = now
        if gap > LATE:
            self._stood += gap
        return now - self._stood


_RUNNING = RunningTime()


class _PatientServer:
    """The Engine.IO server as one of its sockets sees it: its waits for packets do not end by themselves."""

    ping_timeout = NEVER

    def __init__(self, server: Any) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    @property
    def given(self) -> float:
        """Seconds that a client really has to answer a ping."""
        return float(self._server.ping_timeout)


class _Ears:
    """A websocket as its socket reads it; who waits for a packet can be told that none is waited for."""

    def __init__(self, websocket: Any, is_open: Callable[[], bool]) -> None:
        self._websocket, self._is_open = websocket, is_open
        self._waiting: asyncio.Task[Any] | None = None
        self._deaf = False
        self.send, self.close = websocket.send, websocket.close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._websocket, name)

    async def wait(self) -> Any:
        """The next packet; python-engineio waits for it in a task of its own, once it is open."""
        if self._deaf:
            raise OSError("the client was given up")
        self._waiting = asyncio.current_task() if self._is_open() else None
        try:
            return await self._websocket.wait()
        finally:
            self._waiting = None

    def shut(self) -> None:
        """No packet is waited for any more."""
        self._deaf = True
        if self._waiting is not None:
            self._waiting.cancel()


_Base: Any = object


class Patience(_Base):  # type: ignore[misc]
    """What `patient` puts before python-engineio's class of sockets; its server makes one for each client."""

    none_to_poll: type[Exception]  # python-engineio's own, for a poll that ends without packets
    _last_ping: float | None = None
    _pinged = 0.0  # running time at the last ping
    _ears: _Ears | None = None  # set while it is a websocket
    _given_up = False
    last_words: list[Any] = []  # noqa: RUF012 - what a poll is told that `ending` does not wait for

    def __init__(self, server: Any, sid: str) -> None:
        _RUNNING.watch()
        super().__init__(_PatientServer(server), sid)
        SOCKETS.add(self)

    @property
    def last_ping(self) -> float | None:
        """When the ping was said that is not answered, in seconds since the epoch; None: there is none."""
        return self._last_ping

    @last_ping.setter
    def last_ping(self, at: float | None) -> None:
        self._last_ping, self._pinged = at, _RUNNING.now()

    async def check_ping_timeout(self) -> bool:
        """Closes it if the client had its time; what the loop stood still is none."""
        if self.last_ping and _RUNNING.now() - self._pinged > self.server.given:
            self.last_ping = LONG_AGO
        is_there: bool = await super().check_ping_timeout()
        if not is_there and not self._given_up:
            self._given_up = True
            if self._ears is not None:
                self._ears.shut()
            await self.queue.put(None)  # a poll waits no longer
        return is_there

    async def close(self, *arguments: Any, **named: Any) -> None:
        """As theirs; a poll that still waits would wait for ever, and an instance that ends for it."""
        await super().close(*arguments, **named)
        if self.closed and not self.upgraded:
            await self.queue.put(None)

    async def poll(self) -> list[Any]:
        """Packets for the client; one that was given up is told of as one that asks too late."""
        packets: list[Any] = await super().poll()
        if not packets and self._given_up:
            raise self.none_to_poll
        return packets or self.last_words

    async def _websocket_handler(self, websocket: Any) -> Any:
        self._ears = _Ears(websocket, lambda: self.upgraded)
        try:
            return await super()._websocket_handler(self._ears)
        finally:
            self._ears = None


def patient(socket: type[Any], none_to_poll: type[Exception]) -> type[Any]:
    """A class of python-engineio's sockets with our patience."""
    return type(socket.__name__, (Patience, socket), {"none_to_poll": none_to_poll})


def knows(socket: type[Any]) -> bool:
    """Whether a class of sockets is one whose clocks are known."""
    methods = {name: inspect.unwrap(getattr(socket, name, None) or print) for name in NAMES}
    codes = {name: getattr(method, "__code__", None) for name, method in methods.items()}
    return all(code is not None and NAMES[name] <= set(code.co_names) for name, code in codes.items())


def keep_clients() -> None:
    """Has the servers of this process wait for their clients; before the first of them is made, once."""
    _keep_sockets()
    _keep_websockets()
    leave_polls()


def _keep_sockets() -> None:
    try:
        sockets = importlib.import_module("engineio.async_socket")
        none = importlib.import_module("engineio.exceptions").QueueEmpty
        users = vars(importlib.import_module("engineio.async_server"))
        theirs: type[Any] = sockets.AsyncSocket
        if hasattr(theirs, "none_to_poll"):  # also by this package under its other name
            return
        if users.get("async_socket") is sockets and knows(theirs):
            vars(sockets)["AsyncSocket"] = patient(theirs, none)
            return
    except (ImportError, AttributeError):
        pass
    log.info("unknown release of python-engineio: an app that blocks for long may lose its clients")


def _keep_websockets() -> None:
    """Has uvicorn close no websocket for a late pong, unless its app says when: Engine.IO asks, too."""
    try:
        config: Any = importlib.import_module("uvicorn").Config
        made = config.__init__
        signature = inspect.signature(made)
    except (ImportError, AttributeError, ValueError):
        return
    if "ws_ping_timeout" not in signature.parameters or hasattr(made, _MARK):
        return

    @wraps(made)
    def make(*arguments: Any, **named: Any) -> None:
        if "ws_ping_timeout" not in signature.bind(*arguments, **named).arguments:
            named["ws_ping_timeout"] = None
        made(*arguments, **named)

    setattr(make, _MARK, True)
    config.__init__ = make
