"""What each proxy does for Chainlit's sessions, tried out: `python -m benchmarks.features [--write]`.

The stand-ins for Chainlit refuse what belongs to another instance, as Chainlit does, so each case counts
how many of twelve browsers got through; where a proxy knows nothing of a client, that is by chance. Every
request comes over a connection of its own, as a browser's may. A client `without cookies` keeps none, like
a widget on another site and most clients that are no browsers.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks import page
from benchmarks.browser import (
    SID,
    Client,
    LoadError,
    announce,
    connect,
    connect_packet,
    learn,
    open_alone,
)
from benchmarks.browsers import Browser
from benchmarks.measuring import backends
from benchmarks.peers import LEARNING, OURS, PEERS, STICKY, Peer, Running, UnavailableError, start
from benchmarks.wire import SOCKETIO, TOKEN

BROWSERS = 12
INSTANCES = 3
CROWD = 30  # strangers at most
TIMEOUT = 10.0  # seconds for one case of one browser
PAGE = page.ROOT / "docs" / "moving.md"
PART = "what each does"
SHOWN = (PEERS[OURS].holds, PEERS[STICKY].holds, LEARNING.holds)  # in the README

Table = tuple[list[str], list[list[str]]]  # heads and rows


class Crowd:
    """Others, who come and go between any two steps of a case, so that nobody is served in turn."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._there: list[Client] = []
        self._random = random.Random(1)
        self._came = BROWSERS  # how many browsers there were

    async def stir(self) -> None:
        """Some come, and stay with a websocket; some leave."""
        for _ in range(self._random.randrange(1, 4)):
            if self._there and self._random.random() < len(self._there) / CROWD:
                self._there.pop(self._random.randrange(len(self._there))).transport.close()
                continue
            self._came += 1
            browser = Browser(self._came, f"127.0.0.1:{self.running.port}")
            client = await connect(self.running.port, browser.address)
            self._there.append(client)
            await open_alone(browser, client, browser.upgrade(SOCKETIO + b"websocket"))

    def leave(self) -> None:
        """All leave."""
        for client in self._there:
            client.transport.close()
        self._there.clear()


class Tab:
    """One tab of a browser; tabs of one browser have its cookies in common."""

    def __init__(
        self, crowd: Crowd, number: int, first: "Tab | None" = None, *, cookies: bool = True
    ) -> None:
        self.crowd = crowd
        self.running = crowd.running
        self.browser = Browser(number, f"127.0.0.1:{crowd.running.port}")
        self.cookies = cookies
        self.polls = b""
        if first is not None:
            self.browser.cookies = first.browser.cookies
        if not cookies:
            self.browser.cookies = {}
        self.browser.keep([])

    async def _connect(self) -> Client:
        await self.crowd.stir()
        return await connect(self.running.port, self.browser.address)

    def _hear(self, client: Client) -> None:
        if self.cookies:
            learn(self.browser, client.head)

    async def ask(self, request: Callable[[], bytes]) -> bytes:
        """One request over a connection of its own; raises LoadError if the answer is an error."""
        self.browser.keep([])  # what another tab was given
        client = await self._connect()
        try:
            answer = await client.ask(request())
            self._hear(client)
        finally:
            client.transport.close()
        return answer

    async def announce(self) -> None:
        """What Chainlit's page does before it connects."""
        client = await self._connect()
        try:
            await announce(self.browser, client)
        finally:
            client.transport.close()
        if not self.cookies:
            self.browser.cookies = {}
            self.browser.keep([])

    async def poll(self) -> None:
        """Opens the session by polling."""
        await self.announce()
        browser = self.browser
        found = SID.search(await self.ask(lambda: browser.get(SOCKETIO + b"polling&t=1")))
        self.polls = SOCKETIO + b"polling&sid=" + (found[1] if found else b"")
        await self.ask(lambda: browser.post(self.polls, connect_packet(browser)))
        if not (answer := await self.ask(lambda: browser.get(self.polls))).startswith(b"40{"):
            raise LoadError(f"{answer!r}")

    async def go_on(self) -> None:
        """Polls, and uploads a file."""
        if await self.ask(lambda: self.browser.get(self.polls)) != TOKEN:
            raise LoadError("a poll brought something else")
        await self.upload()

    async def upload(self) -> None:
        """What names the session and no transport."""
        target = b"/project/file?session_id=" + self.browser.session.encode()
        await self.ask(lambda: self.browser.post(target, b"x"))

    async def alone(self) -> Client:
        """Opens the session by a websocket without polls."""
        client = await self._connect()
        try:
            await open_alone(self.browser, client, self.browser.upgrade(SOCKETIO + b"websocket"))
        except LoadError:
            client.transport.close()
            raise
        self._hear(client)
        return client

    async def home(self) -> int:
        """The port of the instance that has the session, by its own answer; 0 for none."""
        for port in self.running.backends:
            client = await connect(port)
            with contextlib.suppress(LoadError):
                target = b"/project/file/x?session_id=" + self.browser.session.encode()
                await client.ask(self.browser.get(target), b"404")
                return port
            client.transport.close()
        return 0


async def polling(crowd: Crowd, number: int) -> bool:
    """A client without cookies connects by polling, and goes on polling."""
    tab = Tab(crowd, number, cookies=False)
    await tab.poll()
    return await tab.ask(lambda: tab.browser.get(tab.polls)) == TOKEN


async def polling_upload(crowd: Crowd, number: int) -> bool:
    """The same, and uploads a file."""
    tab = Tab(crowd, number, cookies=False)
    await tab.poll()
    await tab.upload()
    return True


async def websocket_upload(crowd: Crowd, number: int) -> bool:
    """A client without cookies connects by a websocket alone, and uploads a file."""
    tab = Tab(crowd, number, cookies=False)
    client = await tab.alone()
    try:
        await tab.upload()
    finally:
        await client.leave()
    return True


async def reconnect(crowd: Crowd, number: int) -> bool:
    """A client without cookies loses its websocket and comes back to its session."""
    tab = Tab(crowd, number, cookies=False)
    client = await tab.alone()
    client.transport.close()
    client = await tab.alone()  # an instance that has not got the session refuses it
    await client.leave()
    return True


async def two_tabs(crowd: Crowd, number: int) -> bool:
    """Two tabs of one browser both go on."""
    first = Tab(crowd, number)
    await first.poll()
    second = Tab(crowd, number, first)
    await second.poll()
    for tab in (first, second, first):
        await tab.go_on()
    return True


async def two_instances(crowd: Crowd, number: int) -> bool:
    """Two tabs of one browser are on two instances, so that who opens many is no burden to one."""
    first = Tab(crowd, number)
    await first.poll()
    second = Tab(crowd, number, first)
    await second.poll()
    return await first.home() != await second.home()


Case = Callable[[Crowd, int], Awaitable[bool]]
CASES: list[tuple[str, Case]] = [
    ("without cookies: connects by polling", polling),
    ("without cookies: connects by polling, and uploads", polling_upload),
    ("without cookies: connects by websocket alone, and uploads", websocket_upload),
    ("without cookies: loses its websocket, and comes back to its session", reconnect),
    ("two tabs of a browser both go on", two_tabs),
    ("two tabs of a browser are on two instances", two_instances),
]


async def tried(case: Case, crowd: Crowd) -> int:
    """How many browsers got through."""
    good = 0
    for number in range(BROWSERS):
        with contextlib.suppress(LoadError, OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                good += await case(crowd, number)
    return good


async def after_restart(crowd: Crowd) -> int:
    """How many sessions without cookies that poll go on after the proxy was started anew."""
    tabs = [Tab(crowd, number, cookies=False) for number in range(BROWSERS)]
    opened = []
    for tab in tabs:
        with contextlib.suppress(LoadError, OSError):
            await tab.poll()
            opened.append(tab)
    crowd.leave()
    await asyncio.to_thread(crowd.running.restart)
    good = 0
    for tab in opened:
        with contextlib.suppress(LoadError, OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await tab.go_on()
                good += 1
    return good


async def reloads_in_drain(crowd: Crowd) -> str:
    """How many page loads of browsers whose instance drains go to another one."""
    running = crowd.running
    drain = running.peer.drain
    if drain is None:
        return "-"
    tabs = [Tab(crowd, number) for number in range(3 * BROWSERS)]
    for tab in tabs:
        await tab.poll()
    port = running.backends[0]
    there = [tab for tab in tabs if await tab.home() == port][:BROWSERS]
    await asyncio.to_thread(drain, running, 0)
    away = 0
    for number, tab in enumerate(there):
        reloaded = Tab(crowd, number, tab)
        with contextlib.suppress(LoadError, OSError):
            await reloaded.poll()
            away += await reloaded.home() != port
    return f"{away} of {len(there)}"


async def measure(running: Running) -> list[str]:
    """All cases of one proxy, in the order of the table."""
    crowd = Crowd(running)
    cells = [str(await tried(case, crowd)) for _, case in CASES]
    return [*cells, str(await after_restart(crowd)), await reloads_in_drain(crowd)]


def run(peers: list[Peer]) -> Table:
    """The table: its heads and rows."""
    words = [name for name, _ in CASES]
    words += [
        "without cookies: polls and uploads go on after a restart of the proxy",
        "page loads while their instance drains go to another one",
    ]
    heads, columns = ["of twelve browsers"], []
    with backends(INSTANCES) as ports, tempfile.TemporaryDirectory(prefix="features-") as folder:
        for number, peer in enumerate(peers):
            try:
                with start(peer, ports, Path(folder) / str(number)) as running:
                    columns.append(uvloop.run(measure(running)))
                    heads.append(f"{running.title}, {peer.holds}")
            except UnavailableError as error:
                print(f"{peer.name}: left out, {error}", flush=True)
    return heads, [[name, *cells] for name, *cells in zip(words, *columns, strict=True)]


def only(heads: list[str], rows: list[list[str]]) -> Table:
    """The columns of this proxy and of the newest forms of HAProxy and nginx."""
    kept = [0, *(at for at, head in enumerate(heads) if head.endswith(SHOWN))]
    return [heads[at] for at in kept], [[row[at] for at in kept] for row in rows]


def main() -> int:
    """Prints the table, and puts it into the page if told so."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    everybody = [name for name in (*PEERS, LEARNING.name) if name != "aiohttp"]
    usual = [name for name in everybody if name != "HAProxy"]  # the newer one does the same
    parser.add_argument("--peers", nargs="+", choices=everybody, default=usual)
    parser.add_argument("--write", action="store_true", help="put the table into docs/moving.md")
    options = parser.parse_args()
    known = {**PEERS, LEARNING.name: LEARNING}
    tables = run([known[name] for name in options.peers])
    print(*page.table(*tables), sep="\n")
    if options.write:
        page.put(PART, [*page.table(*tables), "", page.taken()], PAGE)
        page.put(PART, [*page.table(*only(*tables)), "", page.taken()], page.README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
