"""An instance that sends and takes bodies of any size: `python -m tests.soak.film NAME PORT`.

`GET /film?bytes=N` is answered with N bytes, `POST` with what has come: its size and its checksum. A thread
for each connection and blocking calls: it has to be faster than what stands before it.
"""

import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = bytes(range(256)) * 1024
"""What bodies are made of, again and again: 256 KiB."""


class Film(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A film, or `ok` for a probe."""
        _, _, wanted = self.path.partition("?bytes=")
        self.send_response(200)
        self.send_header("Content-Length", wanted or "2")
        self.end_headers()
        left = int(wanted or 0)
        while left:
            part = memoryview(BLOCK)[:left]
            self.wfile.write(part)
            left -= len(part)
        if not wanted:
            self.wfile.write(b"ok")

    def do_POST(self) -> None:
        """Takes everything and tells what it was."""
        buffer, size, checksum = bytearray(1 << 20), 0, 0
        left = int(self.headers["Content-Length"])
        while left:
            part = memoryview(buffer)[: self.rfile.readinto1(memoryview(buffer)[:left])]
            checksum, size, left = zlib.crc32(part, checksum), size + len(part), left - len(part)
        answer = b"%d %d" % (size, checksum)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing is logged."""


class Server(ThreadingHTTPServer):
    """Its threads end with the process."""

    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[2])), Film).serve_forever()
