"""What may stand in front of instances: nginx and HAProxy of Debian in several forms, and a relay of our own.

Each is a process with a port of its own; `nginx(...)` and `haproxy(...)` make one that is not started yet.
"""

import asyncio
import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.front_programs import program
from tests.support.instances import ChainlitInstance, http_status
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

_START = 10.0  # seconds
_AT_ONCE = 5  # pieces that the relay passes on before it collects: the opening of a websocket

_NGINX = """\
daemon off;
master_process off;  # whose workers would outlive it when it is killed, and keep its port
user root;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_cookie $session {{ default $remote_addr; "~X-Chainlit-Session-id=(?<id>[^;]+)" $id; }}
    map $http_upgrade $onward {{ default upgrade; "" close; }}
    upstream chainlit {{
        {placement}
{servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://chainlit;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            {more}
        }}
    }}
}}
"""
UPGRADE = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $onward;"
LARGE = "client_max_body_size 500m;"

_HAPROXY = """\
defaults
    mode http
    option forwardfor
    option redispatch 1
    timeout connect 2s
    timeout client 75s
    timeout server 75s
    timeout tunnel 1h
frontend page
    bind 127.0.0.1:{port}
    default_backend chainlit
backend chainlit
    balance roundrobin
    cookie SRV insert indirect nocache
{servers}
"""


class Front(Process):
    """One of them, before these instances."""

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.port = port
        self.path = ""  # where the app is
        self.url = f"http://127.0.0.1:{port}"
        super().__init__("front", command, folder / "front.log", cwd=folder)

    def start(self) -> None:
        """Starts it and waits until an instance answers through it."""

        def answers() -> bool:
            assert self.running, self.tail()
            return http_status(f"{self.url}/health") == 200

        self.launch()
        wait_until(answers, _START, lambda: f"the front is ready\n{self.tail()}")


def nginx(
    instances: Iterable[ChainlitInstance], folder: Path, placement: str = "", more: str = UPGRADE + LARGE
) -> Front:
    """nginx, round robin unless `placement` says otherwise; `more` is said of its only location."""
    port, file = free_port(), folder / "nginx.conf"
    servers = "\n".join(f"        server 127.0.0.1:{one.port};" for one in instances)
    file.write_text(_NGINX.format(folder=folder, port=port, placement=placement, servers=servers, more=more))
    return Front([program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(file)], port, folder)


def haproxy(instances: Iterable[ChainlitInstance], folder: Path) -> Front:
    """HAProxy with a cookie of its own."""
    port, file = free_port(), folder / "haproxy.cfg"
    servers = "\n".join(f"    server {one.name} 127.0.0.1:{one.port} cookie {one.name}" for one in instances)
    file.write_text(_HAPROXY.format(port=port, servers=servers))
    return Front([program("haproxy"), "-db", "-f", str(file)], port, folder)


def collecting(instance: ChainlitInstance, folder: Path, seconds: float = 0.5) -> Front:
    """A relay that passes on what a websocket brings every so many seconds only."""
    port = free_port()
    command = [sys.executable, str(Path(__file__)), str(port), str(instance.port), str(seconds)]
    front = Front(command, port, folder)
    front.env["PYTHONPATH"] = str(Path(__file__).parents[2])
    return front


async def _relay(port: int, upstream: int, seconds: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", upstream)
        except OSError:
            writer.close()
            return
        head = await reader.readuntil(b"\r\n\r\n")
        up_writer.write(head)
        slow = b"upgrade: websocket" in head.lower()
        with contextlib.suppress(OSError):
            await asyncio.gather(
                _pass(reader, up_writer, 0), _pass(up_reader, writer, seconds if slow else 0)
            )

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    reads = 0
    try:
        while data := await reader.read(1 << 16):
            reads += 1
            if seconds and reads > _AT_ONCE:
                await asyncio.sleep(seconds)
                with contextlib.suppress(TimeoutError):  # what has come meanwhile
                    async with asyncio.timeout(0.01):
                        data += await reader.read(1 << 16)
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(_relay(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
