"""Clients that attack by HTTP/2, many at a time: they are cut off and counted, and others are served."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.dataplane.multiplexed import NAME, PREFACE, request
from tests.support.certificates import Authority
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ATTACKERS = 20
FEW = 3  # of those that keep instances busy as well
MANY = 20_000  # frames, two hundred times what a browser says
MOST = 60  # MiB that the process may grow by: each connection may hold a window of each stream
SERVED = 30.0  # seconds in which others are, while the attack goes on, on a machine that is busy as well
WRITE = 2.0  # seconds


def head(number: int, block: bytes, *flags: str) -> HeadersFrame:
    """A HEADERS frame."""
    frame = HeadersFrame(number, block)
    for flag in flags or ("END_HEADERS", "END_STREAM"):
        frame.flags.add(flag)
    return frame


def block(path: bytes, *more: tuple[bytes, bytes], method: bytes = b"GET") -> bytes:
    """The block of a request, that changes no table."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode(request(path, *more, method=method))


def rapid_reset(path: bytes) -> list[Frame]:
    """CVE-2023-44487: requests that are given up at once keep backends busy."""
    asked = block(path)
    return [f for n in range(1, 2001, 2) for f in (head(n, asked), RstStreamFrame(n, error_code=8))]


def made_you_reset(path: bytes) -> list[Frame]:
    """CVE-2025-8671: the same, but it is the server that has to reset."""
    asked = block(path)
    return [
        f
        for n in range(1, 2001, 2)
        for f in (head(n, asked), WindowUpdateFrame(n, window_increment=2**31 - 1))
    ]


def continuation_flood(path: bytes) -> list[Frame]:
    """CVE-2024-27316: a block of fields that does not end fills memory."""
    piece = b"\0\1a\x7f\x80\x7d" + b"x" * 16_000
    return [head(1, block(path), "END_STREAM"), *[ContinuationFrame(1, piece) for _ in range(500)]]


def hpack_bomb(path: bytes) -> list[Frame]:
    """CVE-2016-6581: a field of the table, named again and again, is some thousand times as long unpacked."""
    encoder = Encoder()
    large = encoder.encode([*request(path), (b"x-large", b"x" * 3900)], huffman=False)
    return [
        head(1, large),
        *[head(n, encoder.encode(request(path)) + b"\xbe" * 12_000) for n in range(3, 23, 2)],
    ]


def settings_flood(_: bytes) -> list[Frame]:
    """CVE-2019-9515: each wants an answer."""
    return [SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1 + n % 2}) for n in range(MANY)]


def ping_flood(_: bytes) -> list[Frame]:
    """CVE-2019-9512: the same."""
    return [PingFrame(0, b"12345678") for _ in range(MANY)]


def empty_frames(path: bytes) -> list[Frame]:
    """CVE-2019-9518: frames that bring nothing cost work, and no windows."""
    return [head(1, block(path, method=b"POST"), "END_HEADERS"), *[DataFrame(1) for _ in range(MANY)]]


def shut_windows(path: bytes) -> list[Frame]:
    """CVE-2019-9511 and -9517: who asks for much and takes nothing of it has it kept here."""
    asked = block(path)
    return [
        SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}),
        *[head(n, asked) for n in range(1, 201, 2)],
    ]


@dataclass
class Attack:
    """What is said, and the limit that it is counted under."""

    say: Callable[[bytes], list[Frame]]  # about a file that is large
    limit: str
    attackers: int = ATTACKERS


ATTACKS = [
    Attack(rapid_reset, "http2_resets"),
    Attack(made_you_reset, "http2_resets"),
    Attack(continuation_flood, "head"),
    Attack(hpack_bomb, "head"),
    Attack(settings_flood, "http2_overhead"),
    Attack(ping_flood, "http2_overhead"),
    Attack(empty_frames, "http2_overhead"),
    Attack(shut_windows, "slow_read", FEW),
]


class Victim:
    """A proxy as its attackers see it."""

    def __init__(self, proxy: ProxyProcess, authority: Authority) -> None:
        self.proxy = proxy
        self._port = int(proxy.url.rpartition(":")[2])
        self._authority = authority

    async def open(self, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection that speaks this."""
        context = self._authority.client()
        context.set_alpn_protocols([protocol])
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=context, server_hostname=NAME)

    async def ask(self, path: str = "/favicon") -> bytes:
        """What somebody else is answered."""
        reader, writer = await self.open("http/1.1")
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def attack(self, said: bytes) -> None:
        """Says all this, whatever is answered, until it is cut off."""
        reader, writer = await self.open("h2")
        try:
            writer.write(PREFACE + SettingsFrame(0).serialize() + said)
            while await reader.read(1 << 16):
                pass
        except OSError:
            pass
        finally:
            writer.transport.abort()

    def over(self, limit: str) -> float:
        """How often a limit was hit."""
        return self.proxy.metric("chainlit_proxy_limits_hit_total", limit=limit)

    @property
    def memory(self) -> float:
        """MiB that the process has been at most."""
        lines = Path(f"/proc/{self.proxy.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


@pytest.fixture
def victim(make_proxy: MakeProxy, tmp_path: Path) -> Victim:
    """A proxy with TLS."""
    authority = Authority(tmp_path)
    sections: dict[str, Any] = {"timeouts": {"write": WRITE}}
    return Victim(make_proxy(tls=authority.issue(NAME), **sections), authority)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.say.__name__)
def test_attacks(victim: Victim, attack: Attack) -> None:
    """Each attacker is cut off and counted; meanwhile others are served, and memory stays bounded."""

    async def scenario() -> None:
        files = re.findall(rb'src="\.?(/assets/[^"]+\.js)"', await victim.ask("/"))
        said = b"".join(frame.serialize() for frame in attack.say(files[0]))
        before = victim.memory
        attacks = [asyncio.create_task(victim.attack(said)) for _ in range(attack.attackers)]
        for _ in range(5):
            async with asyncio.timeout(SERVED):
                assert (await victim.ask()).startswith(b"HTTP/1.1 200")
        await eventually(lambda: victim.over(attack.limit) >= attack.attackers, 60, lambda: attack.limit)
        await eventually(lambda: victim.proxy.metric("chainlit_proxy_open_streams") == 0, 60, "none is left")
        for task in attacks if attack.say is shut_windows else ():  # their requests have ended, not they
            task.cancel()
        await asyncio.gather(*attacks, return_exceptions=True)
        print(f"{attack.say.__name__}: {victim.memory - before:.1f} MiB more than {before:.1f}")
        assert victim.memory - before < MOST
        assert (await victim.ask()).startswith(b"HTTP/1.1 200")

    asyncio.run(scenario())
