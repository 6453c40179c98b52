"""A simulated user beside an app that answers what nobody thought of."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.load import user as users
from proxy.load.protocol import Line, LineError, Transport
from proxy.load.tally import Tally
from proxy.load.user import Habits, User

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def app_of(handler: Handler) -> AsyncIterator[str]:
    """An app that answers everything by that."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app, host="127.0.0.1") as server:
        yield str(server.make_url("")).rstrip("/")


@asynccontextmanager
async def living(url: str, transport: Transport, **headers: str) -> AsyncIterator[tuple[User, Tally]]:
    """A user of that app, who leaves in the end and has not failed."""
    tally, connector = Tally(), aiohttp.TCPConnector()
    user = User(1, Habits(url, ["Hello"], 0.0, 10.0, headers), transport, tally, connector)
    task = asyncio.create_task(user.live())
    try:
        yield user, tally
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
        await connector.close()


async def closes(request: web.Request) -> web.StreamResponse:
    """Takes a websocket and ends it at once, as a balancer without servers does."""
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    await websocket.close(code=1013)
    return websocket


async def no_json(_: web.Request) -> web.StreamResponse:
    """A handshake that cannot be read."""
    return web.Response(text="0{")


@pytest.mark.parametrize(
    ("handler", "transport", "told"),
    [
        (closes, Transport.WEBSOCKET, "connect: websocket closed (1013)"),
        (no_json, Transport.POLLING, "connect: an answer is not Engine.IO's"),
    ],
)
def test_a_user_comes_back_whatever_is_answered(
    handler: Handler, transport: Transport, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure is counted; a user who ended without a word would make the app seem to carry the rest."""
    monkeypatch.setattr(users, "_BACK", (0.0, 0.0))

    async def run() -> None:
        came, again = 0, asyncio.Event()

        async def counted(request: web.Request) -> web.StreamResponse:
            nonlocal came
            if request.path.startswith("/ws/"):
                came += 1
                if came > 2:
                    again.set()
            return await handler(request)

        async with app_of(counted) as url, living(url, transport) as (_, tally):
            await asyncio.wait_for(again.wait(), 10)
            assert set(tally.kinds()) == {told}

    asyncio.run(run())


@pytest.mark.parametrize("transport", [Transport.WEBSOCKET, Transport.POLLING])
def test_a_redirect_is_not_followed(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given for one host, and the load itself, goes to no other."""
    monkeypatch.setattr(users, "_BACK", (0.0, 0.0))

    async def run() -> None:
        visits, elsewhere = 0, list[dict[str, Any]]()
        came = asyncio.Event()

        async def other(request: web.Request) -> web.StreamResponse:
            elsewhere.append(dict(request.headers))
            came.set()
            return web.Response(status=404)

        async with app_of(other) as strange:

            async def away(request: web.Request) -> web.StreamResponse:
                nonlocal visits
                visits += request.path.startswith("/ws/")
                if visits > 2:
                    came.set()
                raise web.HTTPTemporaryRedirect(strange + request.path)

            async with app_of(away) as url, living(url, transport, **{"X-Key": "hunter22"}) as (_, tally):
                await asyncio.wait_for(came.wait(), 10)
                assert not elsewhere
                assert all(kind.startswith("connect: 307 to") for kind in tally.kinds())

    asyncio.run(run())


class _Lost(Line):
    """A line that nothing can be said on any more, and nobody has noticed."""

    times = 0

    async def emit(self, event: str, *arguments: Any) -> None:
        """As a closing websocket does: without giving others a turn."""
        self.times += 1
        if self.times > 1000:
            raise asyncio.CancelledError
        raise LineError("connection broke")


def test_a_lost_line_leaves_others_their_turn() -> None:
    """Who cannot ask waits for the event loop: it has yet to learn that the line is lost. It is counted."""

    async def run() -> None:
        async with aiohttp.ClientSession() as http:
            assert http.connector
            line = _Lost(http, "http://127.0.0.1:1", Transport.PAGE, lambda *_: None)
            tally = Tally()
            habits = Habits("http://127.0.0.1:1", ["Hello"], 0.0, 1.0, {})
            user = User(1, habits, Transport.PAGE, tally, aiohttp.TCPConnector())
            user._line = line
            user._usable.set()
            talking = asyncio.create_task(user._talk())
            for _ in range(10):
                await asyncio.sleep(0)
            assert 0 < line.times <= 10
            assert set(tally.kinds()) == {"question: connection broke"}
            talking.cancel()
            await asyncio.wait([talking])

    asyncio.run(run())
