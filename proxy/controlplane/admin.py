"""The admin listener: health of the proxy, metrics, and the API.

Monitoring needs no token (`/healthz`, `/readyz`, `/metrics`), nor does the page, which holds no data;
everything else does where one is set. What
changes something is in `operations`.
"""

import contextlib
import hmac
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

import proxy
from proxy.controlplane import reference
from proxy.controlplane.guard import BrowserGuard
from proxy.controlplane.looking import Sights, add_sights
from proxy.controlplane.operations import Operations, add_operations
from proxy.controlplane.page import add_page

_LAST_ANSWERS = 2  # seconds at the end: the listener's next address waits for those who do not read


def admin_app(
    operations: Operations,
    sights: Sights,
    scrape: Callable[[str], tuple[bytes, str]],
    token: Callable[[], str | None],
) -> FastAPI:
    """The admin application.

    `scrape` tells the metrics in the format of an `Accept` field, and its media type; `token` the one that is
    asked for at present.
    """
    fleet = operations.fleet

    def authorised(request: Request) -> None:
        given, wanted = request.headers.get("authorization", ""), token()
        if wanted is not None and not hmac.compare_digest(given.encode(), f"Bearer {wanted}".encode()):
            raise HTTPException(401, "a valid token is needed: Authorization: Bearer TOKEN")

    app = FastAPI(title="chainlit-sticky-proxy", version=proxy.__version__, docs_url=None, openapi_url=None)
    app.add_middleware(BrowserGuard, named=lambda: token() is not None)
    guarded: Any = Depends(authorised)  # FastAPI types what Depends returns as what it yields

    @app.get("/healthz", response_class=PlainTextResponse, include_in_schema=False)
    async def healthz() -> str:
        return "alive\n"

    @app.get("/readyz", response_class=PlainTextResponse, include_in_schema=False)
    async def readyz(response: Response) -> str:
        if not operations.is_leaving() and any(backend.takes_sessions for backend in fleet):
            return "ready\n"
        response.status_code = 503
        return "leaving\n" if operations.is_leaving() else "no backend takes sessions\n"

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        text, media_type = scrape(request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    add_operations(app, operations, guarded)
    add_sights(app, operations, sights, guarded)
    add_page(app)
    _serve_docs(app, guarded)
    return app


def _serve_docs(app: FastAPI, guarded: Any) -> None:
    @app.get("/openapi.json", dependencies=[guarded], include_in_schema=False)
    async def openapi() -> dict[str, object]:
        return app.openapi()

    @app.get("/docs", dependencies=[guarded], include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(
            reference.page(app.openapi()), headers={"Content-Security-Policy": reference.POLICY}
        )


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


class AdminServer:
    """Serves the admin application on a socket that was bound before."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        sock: socket.socket,
        hang_up: Callable[[], None] = lambda: None,
    ) -> None:
        """`hang_up` has those go who follow events: they would keep the server from its end."""
        self._sock = sock
        self._hang_up = hang_up
        if sock.family == socket.AF_UNIX:
            app = _on_socket_file(app, sock.getsockname())
        self._server = _Quiet(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
        )

    async def run(self) -> None:
        """Serve until `stop` or cancelled."""
        await self._server.serve(sockets=[self._sock])

    def stop(self) -> None:
        """End soon."""
        self._server.should_exit = True
        self._hang_up()
