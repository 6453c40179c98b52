"""Many light clients in one process: `python -m tests.soak.tabs PORT COUNT SEED`.

Each is one tab with a session of its own, and one of three kinds: it polls, it polls first and upgrades, or
it opens a websocket at once. In turn each says something new and waits to hear it repeated, and now and then
fetches a file or uploads one. Whatever comes is held against what was asked: the nonce of each request, the
session and the words of each message, every byte of a body. Another's is `mixed`. A tab that loses its
connection comes back with the same session, as Socket.IO does.

Prints `connected` when all have heard something; at SIGUSR1 each says one thing more, and when all have heard
it, or have not within a time, a report in JSON is printed.
"""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import sys
import uuid
from collections import Counter

import uvloop

from benchmarks.wire import frame
from tests.soak.wire import Message, read_frame, read_message

PATIENCE = 10.0  # seconds for any answer
FINISH = 60.0  # seconds in which all have to be back at the end
ARRIVALS = 400  # tabs a second at the start
PAUSE = (1.0, 3.0)  # seconds between two things that a tab says
RETRY = (0.5, 1.5)  # seconds, as Socket.IO's first retry
PATH = b"/ws/socket.io/?EIO=4&transport="
KINDS = ("polling", "upgrading", "websocket")
PASSING = (OSError, asyncio.IncompleteReadError)  # what a lost instance does to its connections


class LostError(OSError):
    """An answer that says: connect anew."""


class MixedError(Exception):
    """What came is not for who got it."""


class Line:
    """One connection of a tab to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes, nonce: bytes) -> Message:
        """An answer, which has to be that to this request."""
        self.writer.write(request)
        async with asyncio.timeout(PATIENCE):
            answer = await read_message(self.reader)
        # The proxy's own answers bear the request's id, those of an instance its nonce as well.
        if answer.get(b"x-request-id") != nonce or answer.get(b"x-nonce") not in {b"", nonce}:
            raise MixedError(f"asked {nonce!r}, answered {answer.start} {answer.fields}")
        return answer

    async def hear(self) -> bytes:
        """The next websocket packet."""
        async with asyncio.timeout(PATIENCE):
            packet = await read_frame(self.reader)
        if packet is None:
            raise LostError("closed")
        return packet

    def say(self, packet: bytes) -> None:
        """Send a websocket packet."""
        self.writer.write(frame(packet, masked=True))


class Tab:
    """One client."""

    def __init__(self, crowd: "Crowd", number: int) -> None:
        self.crowd = crowd
        self.kind = KINDS[number % len(KINDS)]
        self.session = str(uuid.UUID(int=crowd.random.getrandbits(128))).encode()
        self.said = False  # whether it has heard itself since the crowd is finishing
        self.heard = 0
        self._numbers = itertools.count()
        self._lines: list[Line] = []
        self._files: Line | None = None
        self._sid = b""
        self._speaks: Line | None = None  # set once connected: its POSTs, or its websocket
        self._polls: Line | None = None

    def nonce(self) -> bytes:
        """New with each call, in all of the run."""
        return b"%b.%d" % (self.session, next(self._numbers))

    async def line(self) -> Line:
        """A new connection."""
        async with asyncio.timeout(PATIENCE):
            self._lines.append(Line(*await asyncio.open_connection("127.0.0.1", self.crowd.port)))
        return self._lines[-1]

    async def request(
        self, line: Line, target: bytes, body: bytes | None = None, nonce: bytes = b"", more: bytes = b""
    ) -> Message:
        """Ask for something and get the answer."""
        nonce = nonce or self.nonce()
        method = b"GET" if body is None else b"POST"
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        head = b"%b %b HTTP/1.1\r\nHost: soak\r\nX-Nonce: %b\r\nX-Request-ID: %b\r\n%b%b\r\n"
        return await line.ask(head % (method, target, nonce, nonce, more, length) + (body or b""), nonce)

    async def live(self) -> None:
        """Connect, talk, come back after each loss, until the crowd is finished."""
        announced = False
        while not self.said:
            try:
                if not announced:
                    line = await self.line()
                    await self.request(line, b"/set-session-cookie", b'{"session_id":"%b"}' % self.session)
                    announced = True
                await self._connect()
                while not self.said:
                    await self._talk()
            except PASSING as error:
                self.crowd.losses[type(error).__name__] += 1
                await asyncio.sleep(self.crowd.random.uniform(*RETRY))
            except MixedError as error:
                self.crowd.mixed.append(str(error))
            finally:
                for line in self._lines:
                    line.writer.transport.abort()
                self._lines.clear()
                self._files = None

    async def _connect(self) -> None:
        connect, connected = (b'40{"%b":"%b"}' % (key, self.session) for key in (b"sessionId", b"sid"))
        if self.kind != "websocket":
            self._polls, self._speaks = await self.line(), await self.line()
            opened = await self._poll(PATH + b"polling")
            self._sid = json.loads(opened[1:])["sid"].encode()
            await self._post(connect)
            self._expect(await self._poll(), connected)
        if self.kind != "polling":
            sid = b"" if self.kind == "websocket" else b"&sid=" + self._sid
            more = (
                b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            )
            line = self._speaks = await self.line()
            if (await self.request(line, PATH + b"websocket" + sid, more=more)).status != 101:
                raise LostError("no websocket")
            if sid:
                line.say(b"2probe")
                self._expect(await line.hear(), b"3probe")
                line.say(b"5")
            else:
                self._expect((await line.hear())[:8], b'0{"sid":')
                line.say(connect)
                self._expect(await line.hear(), connected)

    def _expect(self, packet: bytes, expected: bytes) -> None:
        if packet != expected:
            raise MixedError(f"{self.session!r} was told {packet[:160]!r}, not {expected!r}")

    async def _poll(self, target: bytes = b"") -> bytes:
        assert self._polls is not None
        answer = await self.request(self._polls, target or PATH + b"polling&sid=" + self._sid)
        if answer.status != 200:
            raise LostError(answer.status)
        return answer.body

    async def _post(self, packet: bytes) -> None:
        assert self._speaks is not None
        answer = await self.request(self._speaks, PATH + b"polling&sid=" + self._sid, packet)
        if answer.status != 200:
            raise LostError(answer.status)

    async def _talk(self) -> None:
        """Say something and hear it; what is sent while a poll waits is the usual case."""
        last, nonce = self.crowd.finishing.is_set(), self.nonce()
        word = b'["%b"]' % (nonce * self.crowd.random.choice((1, 1, 1, 20, 1000)))
        if self.kind == "polling":
            packet, _ = await asyncio.gather(self._hear_by_poll(), self._post(b"42" + word))
        else:
            assert self._speaks is not None
            self._speaks.say(b"42" + word)
            packet = await self._speaks.hear()
        if not packet.startswith(b'42["heard",%b,"%b","' % (word, self.session)):
            raise MixedError(f"{self.session!r} said {word[:80]!r} and heard {packet[:160]!r}")
        self.heard += 1
        self.crowd.heard(self)
        await self._files_too()
        self.said = last
        if not last:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.crowd.random.uniform(*PAUSE)):
                    await self.crowd.finishing.wait()

    async def _hear_by_poll(self) -> bytes:
        while (packet := await self._poll()) == b"6":
            pass
        return packet

    async def _files_too(self) -> None:
        chance, nonce = self.crowd.random.random(), self.nonce()
        times = self.crowd.random.choice((1, 30, 3000))
        if chance > 0.4:
            return
        if self._files is None:
            self._files = await self.line()
        query = b"?session_id=" + self.session
        if chance < 0.2:
            answer = await self.request(self._files, b"/project/file" + query, nonce * times, nonce)
            expected = b"stored " + nonce
        else:
            target = b"/public/film%b&times=%d&chunked=%d" % (query, times, times % 2)
            answer = await self.request(self._files, target, nonce=nonce)
            expected = nonce * times
        self.crowd.answers[answer.status] += 1
        if answer.status == 200 and answer.body != expected:
            raise MixedError(f"{nonce!r} of {len(expected)} bytes: {answer.body[:160]!r}")
        if answer.get(b"connection") == b"close":
            self._files = None


class Crowd:
    """All tabs of the process."""

    def __init__(self, port: int, count: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.finishing = asyncio.Event()
        self.losses: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()  # to files and uploads, by status
        self.mixed: list[str] = []
        self.tabs = [Tab(self, number) for number in range(count)]
        self._silent = set(self.tabs)

    def heard(self, tab: Tab) -> None:
        """A tab has heard something."""
        if tab in self._silent:
            self._silent.discard(tab)
            if not self._silent:
                print("connected", flush=True)

    async def run(self) -> None:
        """Lives until all have finished."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.finishing.set)
        lives = []
        for tab in self.tabs:
            lives.append(asyncio.create_task(tab.live()))
            await asyncio.sleep(1 / ARRIVALS)
        await self.finishing.wait()
        _, waiting = await asyncio.wait(lives, timeout=FINISH)
        for life in waiting:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        report = {
            "tabs": len(self.tabs),
            "heard": sum(tab.heard for tab in self.tabs),
            "losses": self.losses,
            "answers": self.answers,
            "mixed": self.mixed[:10],
            "not back": sum(not tab.said for tab in self.tabs),
        }
        print(json.dumps(report), flush=True)


async def main(port: int, count: int, seed: int) -> None:
    """Makes the crowd and lets it live."""
    await Crowd(port, count, seed).run()


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:4])))
