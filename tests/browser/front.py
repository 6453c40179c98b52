"""A web server in front of another: what is asked below a path of it goes there, without that path.

As a `location /ops/` with a `proxy_pass` to `/` does in nginx, which passes the Host on as it came.
"""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = "/ops/"
_KEPT = ("Content-Type", "Content-Security-Policy", "Location")


class Front:
    """The server; `lost` are the paths that it was asked for elsewhere."""

    def __init__(self, port: int) -> None:
        """`port` is the other's, on loopback."""
        self.lost: list[str] = []
        lost = self.lost

        class Handler(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                if not self.path.startswith(PATH):
                    lost.append(self.path)
                    self.send_error(404)
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as upstream:
                    try:
                        upstream.request(
                            self.command, f"/{self.path.removeprefix(PATH)}", body, dict(self.headers)
                        )
                        answer = upstream.getresponse()
                    except OSError:  # it does not listen yet
                        self.send_error(502)
                        return
                    self.send_response(answer.status)
                    for name in _KEPT:
                        if value := answer.getheader(name):
                            self.send_header(name, value)
                    self.end_headers()
                    with contextlib.suppress(OSError):  # the page has gone
                        while data := answer.read1(65536):
                            self.wfile.write(data)

            do_GET = do_POST = _pass_on  # noqa: N815 - as BaseHTTPRequestHandler calls them

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}{PATH}"

    @contextlib.contextmanager
    def serving(self) -> Iterator["Front"]:
        """Serve meanwhile."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.socket.close()  # without waiting for those who follow the stream
