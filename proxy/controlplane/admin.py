"""The admin listener: health of the proxy, metrics, and the API.

Monitoring needs no token (`/healthz`, `/readyz`, `/metrics`), nor does the page, which holds no data;
everything else does where one is set. `admin.hook_token` is good for a few routes alone: an app can read the
one of its pod, so from a backend's address it moves this backend only, and nothing that an operator wished.
HEAD is answered as GET is (RFC 9110 section 9.1), and where monitoring asks OPTIONS too, which is what
HAProxy sends unless it is told otherwise. No address here begins with `/` in what the listener itself says:
a front may serve it below a path of its own. What the API shows is in `admin_views`, what it changes in
`admin_actions`.
"""

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse

import proxy
from proxy.controlplane.admin_actions import FOR_HOOKS, AdminActions, add_actions, speaks_for_others
from proxy.controlplane.admin_views import AdminViews, add_views
from proxy.controlplane.guard import BrowserGuard
from proxy.controlplane.page import add_page
from proxy.controlplane.streams import STREAM

_PROBED = {"/healthz", "/readyz"}
_LAST_ANSWERS = 2  # seconds at the end: the listener's next address waits for those who do not read


class Tokens(NamedTuple):
    """What the listener asks for; without a token of operators it asks for none."""

    operators: Sequence[str] = ()
    hooks: Sequence[str] = ()  # good for what a pod says of itself


def admin_app(
    actions: AdminActions,
    views: AdminViews,
    scrape: Callable[[str], tuple[bytes, str]],
    tokens: Callable[[], Tokens],
) -> FastAPI:
    """The admin application.

    `scrape` tells the metrics in the format of an `Accept` field, and its media type; `tokens` those that are
    asked for at present.
    """

    async def authorised(request: Request) -> None:  # async: others are run in a thread
        given, wanted = request.headers.get("authorization", ""), tokens()
        if not wanted.operators or _is_one(given, wanted.operators):
            return
        if not _is_one(given, wanted.hooks):
            raise HTTPException(401, "a valid token is needed: Authorization: Bearer TOKEN")
        if (request.method, request.scope["route"].path) not in FOR_HOOKS:
            raise HTTPException(403, "this token may drain a backend, make it ready and look at it, no more")
        if request.client and speaks_for_others(
            actions.fleet, request.client.host, request.path_params["name"]
        ):
            raise HTTPException(403, "this token is good for the backend alone that it comes from")
        request.state.by_hook = True

    app = FastAPI(
        title="chainlit-sticky-proxy",
        version=proxy.__version__,
        docs_url=None,
        openapi_url=None,
        redirect_slashes=False,  # it would name the whole address, as a front may not have it
    )
    app.add_middleware(BrowserGuard, named=lambda: bool(tokens().operators))
    guarded: Any = Depends(authorised)  # FastAPI types what Depends returns as what it yields

    @app.get("/healthz", response_class=PlainTextResponse, include_in_schema=False)
    async def healthz() -> str:
        return "alive\n"

    @app.get("/readyz", response_class=PlainTextResponse, include_in_schema=False)
    async def readyz(response: Response) -> str:
        reason = views.not_ready()
        if reason:
            response.status_code = 503
        return f"{reason or 'ready'}\n"

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        text, media_type = scrape(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    @app.exception_handler(RequestValidationError)
    async def mistaken(_request: Request, error: RequestValidationError) -> JSONResponse:
        """What is wrong and where; not what was given, which may be no JSON, as NaN is."""
        return JSONResponse(
            {"detail": [{key: one[key] for key in ("type", "loc", "msg")} for one in error.errors()]}, 422
        )

    add_actions(app, actions, guarded)
    add_views(app, actions, views, guarded)
    add_page(app)

    @app.get("/openapi.json", dependencies=[guarded], include_in_schema=False)
    async def openapi() -> dict[str, object]:
        return app.openapi()

    @app.get("/docs", dependencies=[guarded], include_in_schema=False)
    async def docs() -> RedirectResponse:
        return RedirectResponse("openapi.json")

    return app


def _is_one(given: str, tokens: Sequence[str]) -> bool:
    """Whether an Authorization field holds one of them; a comparison's time tells nothing."""
    field = given.encode()
    return any(hmac.compare_digest(field, f"Bearer {token}".encode()) for token in tokens)


class _Quiet(uvicorn.Server):
    """A uvicorn server that leaves signals to the app."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _on_socket_file(app: Callable[..., Awaitable[None]], path: str) -> Callable[..., Awaitable[None]]:
    """The application as a listener on a socket file serves it: older uvicorns do not say that it is one."""

    async def served(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["server"] = (path, None)
        await app(scope, receive, send)

    return served


def _answering_probes(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The application asked by GET where it is asked by HEAD or probed. To HEAD the server sends no body."""

    async def served(scope: dict[str, Any], receive: Any, send: Any) -> None:
        method, path = scope.get("method"), scope.get("path")
        if (method == "HEAD" and path != STREAM) or (
            method == "OPTIONS" and path in _PROBED
        ):  # STREAM: no end
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return served


def _answering_the_cut_off(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The application whose requests are answered 503 when the process ends in the middle of them."""

    async def served(scope: dict[str, Any], receive: Any, send: Any) -> None:
        begun = False

        async def sent(message: dict[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, sent)
        except asyncio.CancelledError:
            if begun:
                raise  # the server closes its connection
            await JSONResponse({"detail": "the proxy is leaving"}, 503)(scope, receive, send)

    return served


def _is_no_cut(record: logging.LogRecord) -> bool:
    """Whether a line tells of something else than a request that was cut off: that is no error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class AdminServer:
    """Serves the admin application on sockets that were bound before, those of one address."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        sockets: Sequence[socket.socket],
        hang_up: Callable[[], None] = lambda: None,
    ) -> None:
        """`hang_up` has those go who follow events: they would keep the server from its end."""
        self._sockets = list(sockets)
        self._hang_up = hang_up
        if sockets[0].family == socket.AF_UNIX:
            app = _on_socket_file(app, sockets[0].getsockname())
        app = _answering_the_cut_off(_answering_probes(app))
        logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
        self._server = _Quiet(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                proxy_headers=False,  # whose address a hook comes from is no claim of its own
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
        )

    async def run(self) -> None:
        """Serve until `stop` or cancelled."""
        await self._server.serve(sockets=self._sockets)

    def stop(self) -> None:
        """End soon."""
        self._server.should_exit = True
        self._hang_up()
