"""What a hostile day happens to: two real instances, a relay before each, the proxy, and a second proxy.

The second one, `tls`, stands before the same relays, has a certificate, and a log on a disk that is full.

Everything is made for one run and belongs to it; nothing is left behind, however the run ends.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from proxy.config.fields import KEYS
from tests.hostile.log import LogPipe
from tests.hostile.relay import Relay
from tests.soak.processes import descriptors, memory
from tests.support.certificates import Authority
from tests.support.instances import Fleet
from tests.support.proxy_process import HEALTH, INTERNAL_ERRORS, ProxyProcess, config_for
from tests.support.proxy_with_names import ProxyWithNames, may_mount

T = TypeVar("T")
PAUSE = 0.05  # seconds between two questions to the admin listener
NAMES = may_mount()
# An instance closes what was idle for 5 seconds; this process, which relays that, may be late.
TIMEOUTS = {"head": 3, "body": 4, "connect": 2, "pool_idle": 2}
TIMEOUTS |= {"write": 4} if ("timeouts", "write") in KEYS else {}
# A websocket that lost its client is soon let go of, so that what is left at the end is seen at the end.
LINGER = 5.0
PER_CLIENT = 300  # connections of one address
PER_TLS_CLIENT = 20  # and at the second proxy
FULL_DISK = Path("/dev/full")


class Harm(IntEnum):
    """What an instance's chats may notice of what is done to it, each with all before it."""

    NOTHING = 0  # answers that are late
    POLLS = 1  # requests that fail; websockets stay
    CONNECTIONS = 2  # connections that are lost; the sessions stay
    SESSIONS = 3  # sessions that begin anew elsewhere


class Site:
    """All processes of a run and what is known of them; `async with Site(folder)`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = Fleet(folder, 2)
        self.relays = {name: Relay(name, self.fleet[name].port) for name in self.fleet.names}
        self.hosts = {name: f"chat-{name}.test" for name in self.fleet.names}
        self.harm = dict.fromkeys(self.fleet.names, Harm.NOTHING)  # of this round
        self.story: list[str] = []  # what was done, for whoever reads of a failure
        self.began = time.monotonic()
        self.lap: Callable[[], Awaitable[None]]  # waits until every chat was answered; set by the crowd
        self.log = LogPipe(folder)
        self.proxy = self._proxy("proxy", {"connections_per_client": PER_CLIENT})
        self.proxy.log = self.log.path
        authority = Authority(folder)
        self.trust: ssl.SSLContext = authority.client()
        pair = authority.issue("127.0.0.1")
        self.tls = self._proxy("tls", {"connections_per_client": PER_TLS_CLIENT}, tls=pair)
        self.tls.log = FULL_DISK
        self._stack = contextlib.AsyncExitStack()
        self.may_miss = False  # whether a lost client may miss text: of a drained instance, over a slow link
        self.late = 0.0  # seconds that this process was late by at most, in this round

    def _proxy(self, name: str, limits: dict[str, int], **more: Any) -> ProxyProcess:
        config = config_for(
            (),
            health=HEALTH | {"timeout": 2},
            timeouts=TIMEOUTS,
            affinity={"linger": LINGER},
            limits=limits,
            forwarded={"trusted": []},
            **more,
        )
        config["backends"] = [{"name": name, "url": self._url(name)} for name in self.fleet.names]
        if NAMES:
            return ProxyWithNames(config, list(self.hosts.values()), self.folder, name)
        return ProxyProcess(config, self.folder, name)

    def _url(self, name: str) -> str:
        return f"http://{self.hosts[name] if NAMES else '127.0.0.1'}:{self.relays[name].port}"

    async def __aenter__(self) -> Self:
        self._stack.callback(self.log.close)
        self._stack.callback(self.fleet.kill)
        for proxy in self.proxies:
            self._stack.callback(proxy.kill9)
        self.fleet.heal()
        for relay in self.relays.values():
            await self._stack.enter_async_context(relay)
        for proxy in self.proxies:
            proxy.launch()
        self.log.read()
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.wait_ready)
        await self.healthy()
        watching = asyncio.create_task(self._watch())
        self._stack.callback(watching.cancel)
        return self

    async def _watch(self) -> None:
        """See how late this process is: it carries all that goes to the instances, and many clients."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(PAUSE)
            self.late = max(self.late, time.monotonic() - before - PAUSE)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def proxies(self) -> tuple[ProxyProcess, ProxyProcess]:
        """Both of them."""
        return self.proxy, self.tls

    @property
    def port(self) -> int:
        """Where clients connect."""
        return int(self.proxy.config["listen"].rpartition(":")[2])

    def tell(self, text: str) -> None:
        """Write down what happens."""
        self.story.append(f"{time.monotonic() - self.began:6.1f} {text}")

    def harms(self, name: str, harm: Harm) -> None:
        """An action is about to do this to an instance."""
        self.harm[name] = max(self.harm[name], harm)
        self.tell(f"      {harm.name.lower()} of {name}")

    async def asked(self, question: Callable[..., T], *words: Any, **labels: Any) -> T:
        """What the admin listener says, while the clients and relays of this process go on."""
        return await asyncio.to_thread(question, *words, **labels)

    async def until(self, question: Callable[[], T], within: float, what: str) -> T:
        """Ask the same way until the answer is true."""
        deadline = time.monotonic() + within
        while not (answer := await asyncio.to_thread(question)):
            self._check_running()
            assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
            await asyncio.sleep(PAUSE)
        return answer

    async def metric(self, name: str, **labels: str) -> float:
        """A metric of the proxy, without its prefix."""
        return await self.asked(self.proxy.metric, f"chainlit_proxy_{name}", **labels)

    async def healthy(self, within: float = 40) -> None:
        """Wait until both instances are judged healthy, by both proxies."""
        expected = dict.fromkeys(self.fleet.names, "healthy")
        for proxy in self.proxies:
            await self.until(partial(judges, proxy, expected), within, f"all healthy at {proxy}")

    async def size(self) -> tuple[int, int]:
        """The proxy's descriptors and bytes of memory."""
        return await asyncio.to_thread(lambda: (descriptors(self.proxy), memory(self.proxy)))

    async def check(self) -> None:
        """Both processes run and have made no mistake."""
        self._check_running()
        for proxy in self.proxies:
            assert await self.asked(proxy.metric, INTERNAL_ERRORS) == 0, f"an internal error of {proxy}"
        assert not self.log.has(b"Traceback"), "a traceback in the log"

    def _check_running(self) -> None:
        for proxy in self.proxies:
            assert proxy.running, f"{proxy} ended with {proxy.returncode}"


def judges(proxy: ProxyProcess, expected: dict[str, str]) -> bool:
    """Whether these are a proxy's verdicts."""
    return proxy.health() == expected
