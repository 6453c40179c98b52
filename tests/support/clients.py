"""Opens and closes the chats of one test, in both languages."""

import asyncio
import itertools
import ssl
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any, Self

from tests.support.chat import Chat
from tests.support.js_link import JsLink, Node
from tests.support.link import KINDS, RECONNECT_DELAY, Browser, Driver, Identity, Kind, Link
from tests.support.python_link import PythonLink

# More clients than this connecting at the same instant measures the machine, not the proxy.
AT_ONCE = 12


class Clients:
    """The tabs of one test and what carries them; owned by the test, as `async with Clients(url)`."""

    def __init__(
        self, url: str, delay: float = RECONNECT_DELAY, trusts: ssl.SSLContext | None = None
    ) -> None:
        """`trusts` is what clients in Python know of the certificate of a URL of https."""
        self.url, self.delay, self.trusts = url, delay, trusts
        self.chats: list[Chat] = []
        self._node: Node | None = None
        self._stack = AsyncExitStack()
        self._names = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(chat.link.close() for chat in self.chats), return_exceptions=True)
        await self._stack.aclose()

    def browser(self, kind: Kind) -> Browser:
        """A new browser, to be shared by several tabs of that kind."""
        return Browser(f"browser{next(self._names)}", cookies=kind.identity is Identity.COOKIES)

    async def chat(self, kind: Kind, browser: Browser | None = None) -> Chat:
        """A tab that is not connected yet, in a browser of its own if none is given."""
        link: Link
        browser = browser or self.browser(kind)
        if kind.driver is Driver.PYTHON:
            link = PythonLink(self.url, kind, browser, self.delay, self.trusts)
        else:
            if self._node is None:
                self._node = await self._stack.enter_async_context(Node())
            link = JsLink(self.url, kind, browser, self.delay, self._node, f"tab{next(self._names)}")
        chat = Chat(link)
        self.chats.append(chat)
        return chat

    async def open(self, kind: Kind, browser: Browser | None = None) -> Chat:
        """A tab with a working session."""
        chat = await self.chat(kind, browser)
        await chat.open()
        return chat

    async def open_many(
        self, kinds: Iterable[Kind], at_once: int = AT_ONCE, *, on: Collection[str] = (), each_has: int = 2
    ) -> list[Chat]:
        """One working session per kind named, a few at a time.

        Where they are placed is the draw's affair. A test that needs somebody at certain instances names them
        by `on`: then more are opened until `each_has` are at each of those.
        """
        kinds = list(kinds)
        chats = [await self.chat(kind) for kind in kinds]
        await each(chats, lambda chat: chat.open(), at_once)
        for place in on:
            missing = each_has - sum(chat.home == place for chat in chats)
            chats += await self.open_until_on(place, kinds=kinds, count=missing)
        return chats

    async def open_until_on(
        self, place: str, within: float = 30, kinds: Iterable[Kind] = KINDS, count: int = 1
    ) -> list[Chat]:
        """New sessions of these kinds, until `count` are there: one that returned gets few at first."""
        deadline = time.monotonic() + within
        chats: list[Chat] = []
        there = 0
        for kind in itertools.cycle(kinds):
            if there >= count:
                break
            assert time.monotonic() < deadline, f"{there} of {len(chats)} new sessions were placed on {place}"
            chats.append(await self.open(kind))
            there += chats[-1].home == place
        return chats

    async def close(self, chat: Chat) -> None:
        """Closes one tab."""
        self.chats.remove(chat)
        await chat.link.close()


async def each(
    chats: Iterable[Chat], work: Callable[[Chat], Coroutine[Any, Any, object]], at_once: int = AT_ONCE
) -> None:
    """Does the work for every chat, a few at a time; one AssertionError that tells of all that failed."""
    turn = asyncio.Semaphore(at_once)

    async def one(chat: Chat) -> None:
        async with turn:
            await work(chat)

    chats = list(chats)
    results = await asyncio.gather(*(one(chat) for chat in chats), return_exceptions=True)
    failures = [
        f"{chat}: {result!r}"
        for chat, result in zip(chats, results, strict=True)
        if isinstance(result, Exception)
    ]
    assert not failures, f"{len(failures)} of {len(chats)} failed:\n" + "\n".join(failures[:8])


def assert_nothing_refused(chats: Iterable[Chat]) -> None:
    """No request of any of the chats was answered with an error."""
    refused = [f"{chat}: {exchange}" for chat in chats for exchange in chat.refused()]
    assert not refused, f"{len(refused)} refused:\n" + "\n".join(refused[:10])
