"""`python -m benchmarks.compression`: what permessage-deflate costs Chainlit, and what it saves on the wire.

A real Chainlit instance streams tokens to websocket clients that offer compression as a browser does, and
to others that do not, in turns. Printed are the CPU microseconds of the Chainlit process per token and the
bytes per token and per message after the websocket's handshake. It is the ground on which the proxy decides
whether it offers compression to a backend.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.uri import parse_uri

from benchmarks.cpu import cpu_ns
from benchmarks.peers import free_ports

APP = Path(__file__).with_name("streaming_app.py")
START = 60.0  # seconds that Chainlit may take to start on a busy machine
TIMEOUT = 60.0  # seconds for one round of one kind


class Load(NamedTuple):
    """One way to stream: so many sessions, tokens of each, and seconds between two tokens."""

    words: str
    sessions: int
    tokens: int
    every: float


LOADS = [
    Load("20 sessions, 50 tokens/s each", 20, 200, 0.02),
    Load("5 sessions, as fast as it goes", 5, 2000, 0),
]


class Figures(NamedTuple):
    """What one round found."""

    cpu: float  # microseconds of the Chainlit process per token
    down: float  # bytes to the client per token
    up: float  # bytes to the server per message


class Tab(asyncio.Protocol):
    """One websocket-only client; made once and used in every round."""

    transport: asyncio.Transport

    def __init__(self, port: int, compressed: bool) -> None:
        extensions = [ClientPerMessageDeflateFactory()] if compressed else None
        url = f"ws://127.0.0.1:{port}/ws/socket.io/?EIO=4&transport=websocket"
        self.websocket = ClientProtocol(parse_uri(url), extensions=extensions)
        self.session = str(uuid.uuid4())
        self.down = self.up = 0  # bytes on the wire, after the handshake
        self.tokens = 0
        self.changed = asyncio.Event()
        self.ended = 0  # how many tasks the server has ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the upgrade."""
        self.transport = transport  # type: ignore[assignment]
        self.websocket.send_request(self.websocket.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Counts what comes and notes what it tells."""
        self.down += len(data)
        self.websocket.receive_data(data)
        for event in self.websocket.events_received():
            if isinstance(event, Frame):
                self._packet(bytes(event.data))
        self._flush()

    def _packet(self, packet: bytes) -> None:
        if packet.startswith(b"0"):
            auth = {"clientType": "webapp", "sessionId": self.session, "threadId": "", "userEnv": "{}"}
            self._send("40" + json.dumps(auth))
        elif packet.startswith(b"40"):
            self._send('42["connection_successful"]')
        elif packet == b"2":
            self._send("3")
        elif packet.startswith(b'42["stream_token"'):
            self.tokens += 1
        elif packet.startswith(b'42["task_end"'):
            self.ended += 1
            self.changed.set()

    def _send(self, packet: str) -> None:
        self.websocket.send_text(packet.encode())
        self._flush()

    def _flush(self) -> None:
        for data in self.websocket.data_to_send():
            self.up += len(data)
            self.transport.write(data)

    async def task_end(self, number: int) -> None:
        """Waits until so many tasks have ended."""
        while self.ended < number:
            self.changed.clear()
            await self.changed.wait()

    async def say(self, text: str) -> None:
        """Sends a message as the page does and waits for the end of the answer."""
        message = {
            "id": str(uuid.uuid4()),
            "threadId": "",
            "name": "User",
            "type": "user_message",
            "output": text,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "metadata": {"location": "http://127.0.0.1/"},
        }
        awaited = self.ended + 1
        self._send("42" + json.dumps(["client_message", {"message": message, "fileReferences": None}]))
        await self.task_end(awaited)


async def open_tabs(port: int, count: int, compressed: bool) -> list[Tab]:
    """Clients whose sessions are ready."""
    loop = asyncio.get_running_loop()
    tabs = []
    for _ in range(count):
        _, tab = await loop.create_connection(lambda: Tab(port, compressed), "127.0.0.1", port)
        await tab.task_end(1)
        if bool(tab.websocket.extensions) != compressed:
            raise SystemExit(f"compression: wanted {compressed}, negotiated {tab.websocket.extensions}")
        tabs.append(tab)
    return tabs


async def stream(pid: int, tabs: list[Tab], load: Load) -> Figures:
    """Streams on all clients at once."""
    for tab in tabs:
        tab.down = tab.up = tab.tokens = 0
    before = cpu_ns(pid)
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(*(tab.say(f"{load.tokens} {load.every}") for tab in tabs))
    spent = cpu_ns(pid) - before
    tokens = sum(tab.tokens for tab in tabs)
    if tokens < load.tokens * len(tabs) - len(tabs):  # the first token travels in the start of the stream
        raise SystemExit(f"{tokens} tokens came of {load.tokens * len(tabs)}")
    down, up = sum(tab.down for tab in tabs), sum(tab.up for tab in tabs)
    return Figures(spent / tokens / 1000, down / tokens, up / len(tabs))


async def measure(pid: int, port: int, rounds: int) -> dict[tuple[Load, bool], list[Figures]]:
    """All rounds, offered and not in turns; the order changes from round to round."""
    most = max(load.sessions for load in LOADS)
    async with asyncio.timeout(TIMEOUT):
        tabs = {kind: await open_tabs(port, most, kind) for kind in (False, True)}
    for group in tabs.values():  # the first messages pay for imports and caches
        await stream(pid, group, Load("", most, 20, 0))
    found = defaultdict(list)
    for number in range(rounds):
        for load in LOADS:
            for kind in (False, True) if number % 2 else (True, False):
                found[load, kind].append(await stream(pid, tabs[kind][: load.sessions], load))
    return found


@contextlib.contextmanager
def chainlit() -> Iterator[tuple[int, int]]:
    """The process id and port of a fresh instance; its log is shown if it does not start."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "chainlit", "run", str(APP), "--headless"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        (Path(folder) / "log").open("w+b") as log,
    ):
        environment = os.environ | {"CHAINLIT_APP_ROOT": folder}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + START
            while not _healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"Chainlit did not start:\n{log.read().decode(errors='replace')}")
                time.sleep(0.1)
            yield process.pid, port
        finally:
            process.kill()
            process.wait()


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
        return True
    return False


def table(found: dict[tuple[Load, bool], list[Figures]]) -> list[str]:
    """The lines of the Markdown table, and what compression adds within a round."""
    lines = [
        "| load | deflate | CPU us per token | bytes down per token | bytes up per message |",
        "|---|---|---:|---:|---:|",
    ]
    for load, compressed in itertools.product(LOADS, (False, True)):
        figures = found[load, compressed]
        cpu = [one.cpu for one in figures]
        spread = f"{statistics.median(cpu):.0f} ({min(cpu):.0f}-{max(cpu):.0f})"
        down = statistics.median(one.down for one in figures)
        up = statistics.median(one.up for one in figures)
        lines.append(
            f"| {load.words} | {'offered' if compressed else 'not'} | {spread} | {down:.1f} | {up:.0f} |"
        )
    for load in LOADS:
        pairs = zip(found[load, True], found[load, False], strict=True)
        added = statistics.median(deflated.cpu - plain.cpu for deflated, plain in pairs)
        lines.append(f"\n{load.words}: compression adds {added:+.0f} us per token")
    return lines


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that Chainlit ends with it
    with chainlit() as (pid, port):
        print("\n".join(table(asyncio.run(measure(pid, port, options.rounds)))))


if __name__ == "__main__":
    main()
