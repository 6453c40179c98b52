"""Checks of sessions: each transport, with cookies and without, and everything that belongs to a session.

What goes to a balancer's servers in turn would pass by chance if it were tried once: each is tried several
times, always with a session of its own, and what its instance alone can answer is asked twice in a row.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack

from proxy.doctor.browser import SOCKET, Answer, Browser, Site
from proxy.doctor.engine import RefusedError, Transport
from proxy.doctor.findings import Verdict, failed, passed, skipped, warning
from proxy.doctor.pages import several
from proxy.doctor.tab import Reached, Tab

TRIES = 3
TABS = 10  # of one browser; with a hash over two instances all would be together once in 512 times
MANY = 16  # sessions at once
_ECHOES = 2

Checked = Callable[[Site], Awaitable[Verdict]]
Bad = Callable[[str, Iterable[str]], Verdict]


def usual(site: Site) -> Transport:
    """How a page connects here in the end."""
    return Transport.BOTH if site.websockets else Transport.POLLING


def connects(transport: Transport, *, cookies: bool = True) -> Checked:
    """The check that sessions open by a transport, and that packets go both ways."""

    async def one(site: Site) -> str:
        async with Browser(site, cookies=cookies) as browser, Tab(browser, transport) as tab:
            await tab.load()
            for _ in range(_ECHOES):
                await tab.engine.echo()
        return ""

    async def check(site: Site) -> Verdict:
        if reason := _not_without_cookies(site, cookies):
            return skipped(reason)
        results = await asyncio.gather(*(_error_of(one(site)) for _ in range(TRIES)))
        return _counted("sessions opened", results, failed if cookies else warning)

    return check


async def upgrade(site: Site) -> Verdict:
    """Whether websockets get through at all."""
    told = f"{SOCKET}?transport=websocket"
    async with Browser(site) as browser:
        socket = await browser.websocket({"EIO": "4", "transport": "websocket"}, told)
        if isinstance(socket, Answer):
            site.websockets = False
            return failed("no upgrade gets through", [str(socket)])
        await socket.close()
    return passed("upgrades get through", [f"GET {told}: 101"])


def reaches(name: str) -> Checked:
    """The check that a request of a session meets its instance: `upload`, `element` or `action`."""

    async def one(site: Site) -> list[Reached]:
        async with Browser(site) as browser, Tab(browser, _sure(site)) as tab:
            await tab.load()
            return [await tab.requests[name]() for _ in range(2)]

    async def check(site: Site) -> Verdict:
        found: list[Reached] = []
        errors: list[str] = []
        for _ in range(TRIES):
            try:
                found += await one(site)
            except RefusedError as error:
                errors.append(str(error))
        if not found:
            return skipped(f"no session opened: {errors[0]}")
        return _reached(found, failed)

    return check


async def requests_without_cookies(site: Site) -> Verdict:
    """Whether uploads, elements and actions of clients without cookies meet their instance."""
    if reason := _not_without_cookies(site, cookies=False):
        return skipped(reason)
    found: list[Reached] = []
    errors: list[str] = []
    for _ in range(TRIES):
        async with Browser(site, cookies=False) as browser, Tab(browser, _sure(site)) as tab:
            try:
                await tab.load()
            except RefusedError as error:
                errors.append(str(error))
                continue
            found += [await ask() for ask in tab.requests.values() for _ in range(2)]
    return _reached(found, warning) if found else skipped(f"no session opened: {errors[0]}")


def comes_back(*, cookies: bool = True) -> Checked:
    """The check that a client which lost its connection finds its session again, by the file in it."""

    async def one(site: Site) -> str:
        async with Browser(site, cookies=cookies) as browser, Tab(browser, _sure(site)) as tab:
            await tab.load()
            before = await tab.upload()
            await tab.come_back()
            after = [await tab.upload(), await tab.upload()]
            if before.id:
                after += [await tab.element(before.id), await tab.element(before.id)]
            lost = [reached.answer for reached in (before, *after) if not reached.there]
        return f"after it came back: {lost[0]}" if lost else ""

    async def check(site: Site) -> Verdict:
        if reason := _not_without_cookies(site, cookies):
            return skipped(reason)
        results = await asyncio.gather(*(_error_of(one(site)) for _ in range(TRIES)))
        return _counted("sessions came back", results, failed if cookies else warning)

    return check


async def tabs(site: Site) -> Verdict:
    """Whether older tabs still reach their instance when newer ones have opened."""
    async with Browser(site) as browser, AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Tab(browser, _sure(site))) for _ in range(TABS)]
        try:
            for tab in opened:
                await tab.load()
        except RefusedError as error:
            return failed("a tab does not open", [str(error)])
        found = [(await tab.element(), await tab.action()) for tab in opened]
    lost = sum(not all(reached.there for reached in pair) for pair in found)
    evidence = several(str(reached.answer) for pair in found for reached in pair if not reached.there)
    if lost:
        return failed(f"{lost} of {TABS} tabs of one browser have lost their instance", evidence)
    return passed(f"{TABS} of {TABS} tabs of one browser go on")


async def many_sessions(site: Site) -> Verdict:
    """Whether many sessions at once are all served."""
    transports = [Transport.POLLING, *([Transport.BOTH, Transport.WEBSOCKET] if site.websockets else [])]

    async def one(number: int) -> str:
        async with Browser(site) as browser, Tab(browser, transports[number % len(transports)]) as tab:
            await tab.load()
            await tab.engine.echo()
            reached = await tab.element()
        return "" if reached.there else str(reached.answer)

    results = await asyncio.gather(*(_error_of(one(number)) for number in range(MANY)))
    return _counted("sessions at once were served", results, failed)


def _sure(site: Site) -> Transport:
    """The transport that opens wherever one does: what is tested is what comes after it."""
    return Transport.WEBSOCKET if site.websockets else Transport.POLLING


def _not_without_cookies(site: Site, cookies: bool) -> str:
    """Why a client without cookies cannot be tried; empty if it can."""
    if cookies:
        return ""
    if site.login:
        return "the app asks for a login, which is a cookie"
    return "a cookie was given with --cookie" if site.settings.cookies else ""


async def _error_of(work: Awaitable[str]) -> str:
    """What a try says is wrong; empty if it went well."""
    try:
        return await work
    except RefusedError as error:
        return str(error)


def _counted(what: str, results: list[str], bad: Bad) -> Verdict:
    good = results.count("")
    text = f"{good} of {len(results)} {what}"
    return passed(text) if good == len(results) else bad(text, several(filter(None, results)))


def _reached(found: list[Reached], bad: Bad) -> Verdict:
    lost = [str(reached.answer) for reached in found if not reached.there]
    text = f"{len(found) - len(lost)} of {len(found)} requests met the instance of their session"
    return bad(text, several(lost)) if lost else passed(text, [str(found[0].answer)])
