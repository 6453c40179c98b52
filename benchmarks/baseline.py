"""The proxy that a Python developer would write first, as a peer: `python -m benchmarks.baseline CONFIG`.

aiohttp's server and client, a cookie that names the instance, headers passed on, bodies and frames passed as
they come, and aiohttp's own access log. The configuration is a port and
the urls of the backends, a line each.
"""

import asyncio
import logging
import random
import sys
from pathlib import Path

import uvloop
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType, web

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "host"}
_COOKIE = "SRV"
_CLIENT = web.AppKey("client", ClientSession)
_BACKENDS = web.AppKey("backends", list[str])


async def relay(request: web.Request) -> web.StreamResponse:
    """Pass one request to the instance that its cookie names."""
    backends = request.app[_BACKENDS]
    named = request.cookies.get(_COOKIE, "")
    at = int(named) if named.isdigit() and int(named) < len(backends) else random.randrange(len(backends))
    url = f"{backends[at]}{request.rel_url}"
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
    headers["X-Forwarded-For"] = request.remote or ""
    if request.headers.get("Upgrade", "").lower() == "websocket":
        kept = {name: value for name, value in headers.items() if not name.lower().startswith("sec-")}
        return await _websocket(request, url, kept)
    body = await request.read() if request.body_exists else None
    async with request.app[_CLIENT].request(request.method, url, headers=headers, data=body) as answer:
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                response.headers.add(name, value)
        response.content_length = answer.content_length
        if named != str(at):
            response.set_cookie(_COOKIE, str(at))
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    return response


async def _websocket(request: web.Request, url: str, headers: dict[str, str]) -> web.StreamResponse:
    ours = web.WebSocketResponse(compress=False)
    await ours.prepare(request)
    async with request.app[_CLIENT].ws_connect(url, headers=headers) as theirs:
        up = asyncio.create_task(_pump(ours, theirs))
        await _pump(theirs, ours)
        up.cancel()
    return ours


Side = web.WebSocketResponse | ClientWebSocketResponse


async def _pump(source: Side, target: Side) -> None:
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
    await target.close()


async def serve(port: int, backends: list[str]) -> None:
    """Serve until terminated."""
    logging.basicConfig(level=logging.INFO)
    async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as client:
        app = web.Application(client_max_size=0)  # no limit
        app[_CLIENT], app[_BACKENDS] = client, backends
        app.router.add_route("*", "/{path:.*}", relay)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    own_port, *urls = Path(sys.argv[1]).read_text().split()
    uvloop.run(serve(int(own_port), urls))
