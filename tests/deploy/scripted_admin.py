"""An admin listener whose answers a test has written."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Proxy:
    """An admin listener: `answers` gives the status and the body for a method."""

    def __init__(
        self, answers: Callable[[str], tuple[int, dict[str, Any]]], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.asked: list[str] = []
        self.given: list[str | None] = []  # Authorization fields
        asked, given = self.asked, self.given

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked.append(f"{self.command} {self.path}")
                given.append(self.headers.get("Authorization"))
                status, told = answers(self.command)
                body = json.dumps(told).encode()
                self.send_response(status)
                if "location" in told:
                    self.send_header("Location", told["location"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815 - as BaseHTTPRequestHandler calls them

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
