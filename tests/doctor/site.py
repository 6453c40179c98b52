"""A stand-in for a deployment: it answers each path as a test says."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from proxy.doctor.browser import Settings, Site

PAGE = '<meta property="og:root_path" content="{root}"><script src="{root}/assets/index-{build}.js"></script>'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def page(build: str = "1", root: str = "") -> web.Response:
    """Chainlit's page, as far as it is looked at."""
    return web.Response(text=PAGE.format(root=root, build=build), content_type="text/html")


def says(value: Any, **options: Any) -> Handler:
    """Answers JSON."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response(value, **options)

    return answer


@asynccontextmanager
async def deployment(answers: dict[str, Handler], **settings: Any) -> AsyncIterator[Site]:
    """The site that is examined; what no answer is given for is a page."""

    async def answer(request: web.Request) -> web.StreamResponse:
        handler = answers.get(request.path)
        return await handler(request) if handler else page()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        path = settings.pop("path", "/")
        yield Site(Settings(URL(str(server.make_url(path))), **settings))
