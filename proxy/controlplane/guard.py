"""What keeps a browser on the operator's machine from being used against the admin listener.

A page from anywhere can make its browser send requests to a loopback address, and by DNS rebinding even
read the answers, for which the page's own name comes to mean that address. A browser tells the truth in
two fields: `Host` is the name it was told to ask, `Origin` the page that asks. So an Origin has to be the
listener itself; where no token protects the listener, Host has to be an address or localhost; and what
changes something has to be JSON, which no page may send elsewhere without leave. Every browser says Host,
so a health check that says none, as HAProxy's does, is no browser.
"""

import ipaddress
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MONITORING = frozenset(("/healthz", "/readyz", "/metrics"))
_READING = frozenset(("GET", "HEAD", "OPTIONS"))
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class BrowserGuard:
    """ASGI middleware of the admin application; `named()` says whether any name may stand in Host."""

    def __init__(self, app: ASGIApp, *, named: Callable[[], bool]) -> None:
        self._app = app
        self._named = named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)  # the page has a policy of its own
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, secured)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        # No browser gets to a socket file. The listener's own address tells that it is one: the client's is
        # missing on TCP too, once a connection has been reset.
        server = scope.get("server")
        by_socket_file = server is not None and server[1] is None
        is_check = not hosts and scope["path"] in _MONITORING
        asked_for = len(hosts) == 1 and _is_address(hosts[0])
        if not (self._named() or by_socket_file or is_check or asked_for):
            return _refused(403, "Host has to be an address or localhost, unless admin.token is set")
        if any(_authority(origin) not in {host.lower() for host in hosts} for origin in origins):
            return _refused(403, "requests of pages from elsewhere are refused")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] not in _READING and kind != "application/json":
            return _refused(415, "needs Content-Type: application/json")
        return None

    def __repr__(self) -> str:
        return f"<BrowserGuard named={self._named()}>"


def _refused(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _authority(origin: str) -> str:
    scheme, colons, authority = origin.lower().partition("://")
    return authority if colons and scheme in {"http", "https"} else ""


def _is_address(host: str) -> bool:
    """Whether a Host is an IP address or localhost, with or without a port: nobody else can own that name."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name.lower() in {"localhost", "localhost."}:
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
