"""Browsers that load pages, announce sessions and connect, where backends may have so many sessions only."""

import re
from typing import Any

from proxy.config import Config
from tests.dataplane.chat import Tab, connect_packet
from tests.dataplane.frames import Socket
from tests.dataplane.peers import Message, get, post
from tests.dataplane.world import World, run

PAGE = (b"Accept: text/html,*/*;q=0.8", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document")
FULL = b"every instance has as many sessions as it may have"
TRY_AGAIN_LATER = (1013).to_bytes(2, "big")


class Browser:
    """One that keeps its cookies, unless it refuses them."""

    def __init__(self, world: World, address: bytes, *, refuses: bool = False) -> None:
        self.world = world
        self.address = address
        self.cookies: dict[bytes, bytes] = {}
        self._refuses = refuses

    @property
    def fields(self) -> list[bytes]:
        """Those of all its requests."""
        cookies = b"; ".join(b"%b=%b" % pair for pair in self.cookies.items())
        sent = [b"Cookie: " + cookies] if cookies else []
        return [b"X-Forwarded-For: " + self.address, b"User-Agent: Browser", *sent]

    def keep(self, answer: Message) -> Message:
        """What an answer sets."""
        for line in [] if self._refuses else answer.all(b"set-cookie"):
            name, _, value = line.partition(b";")[0].partition(b"=")
            self.cookies[name] = value
        return answer

    async def load(self, *more: bytes) -> Message:
        """Loads the page."""
        return self.keep(await self.world.ask(get(b"/", *PAGE, *self.fields, *more)))

    async def place(self) -> bytes:
        """Loads it and has to wait: the place that it is told."""
        answer = await self.load()
        assert (answer.status, answer.get(b"retry-after")) == (503, b"3"), answer
        return place_in(answer.body)

    async def announce(self, session: str) -> None:
        """As a page does before it connects for the first time."""
        body = b'{"session_id":"%b"}' % session.encode()
        answer = await self.world.ask(post(b"/set-session-cookie", body, *self.fields))
        assert answer.status == 200
        if not self._refuses:
            self.cookies[b"X-Chainlit-Session-id"] = session.encode()

    async def say_connect(self, session: str) -> Socket:
        """Says CONNECT on a websocket; how that ends is not awaited."""
        socket = await Tab(self.world, *self.fields).socket()
        await socket.hear()
        socket.say(connect_packet(session))
        return socket

    async def connect(self, session: str) -> Socket:
        """Has a session."""
        socket = await self.say_connect(session)
        assert (await socket.hear()).startswith(b'40{"sid":')
        found = self.world.router.directory.get(session, self.world.now())
        await self.world.until(lambda: found is not None and found.open)
        return socket

    async def visit(self, session: str) -> Socket:
        """Loads the page and has a session."""
        assert (await self.load()).status == 200
        await self.announce(session)
        return await self.connect(session)


def place_in(body: bytes) -> bytes:
    """The place that a page or a text tells: 2 of 3."""
    found = re.search(rb"You are number (\d+ of \d+) in the queue", body)
    return found[1] if found else b""


async def leave(world: World, socket: Socket) -> None:
    """The tab is closed."""
    before = len(world.router.directory.open())
    socket.say(b"41")
    socket.peer.close()
    await world.until(lambda: len(world.router.directory.open()) < before)
    world.plane.site.lingers.end_all()


def counts(world: World) -> dict[str, int]:
    """What the queue has counted."""
    return world.plane.site.doorway.counts()


def browsers(world: World, count: int) -> list[Browser]:
    """With an address each."""
    return [Browser(world, b"192.0.2.%d" % number) for number in range(1, count + 1)]


def run_full(test: Any, names: str = "a", most: int = 1, **settings: Any) -> None:
    """Run a test where each backend may have so many sessions."""
    run(test, names, balance={"most_sessions": most, **settings.pop("balance", {})}, **settings)


def configure(world: World, **sections: Any) -> None:
    """Go by other settings."""
    config: Config = world.plane.site.config.model_copy(update=sections)
    world.plane.site.configure(config)
    world.parts.fleet.configure(config)
