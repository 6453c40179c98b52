"""Hostile clients of HTTP: each is one action, bounded, and states the rule that it tests."""

import asyncio
import contextlib
import time
import urllib.request
import uuid
from random import Random

from tests.dataplane.chat import PATH, connect_packet
from tests.dataplane.peers import Cut, Peer, get, post
from tests.hostile.site import PER_CLIENT, PER_TLS_CLIENT, TIMEOUTS, Site
from tests.hostile.strangers import (
    Action,
    Ground,
    Simple,
    answered,
    next_address,
    polling_sid,
    status,
    stranger,
    strangers,
)
from tests.support.waiting import eventually

CROWD = 40
MANY = 100
SOON = 20.0  # seconds until a deadline has passed, on a machine that does much else
LARGE = b"/copilot/index.js"  # eight megabytes
HELLO = b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03" + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00\r\n\r\n"


async def half_closes(site: Ground, chance: Random) -> None:
    """Says all that it will ever say, and closes its side: it is answered, and then let go."""
    async with stranger(site) as peer:
        peer.say(get(b"/health", b"Connection: keep-alive")).half_close()
        assert (await peer.response()).status == 200
        await peer.gone()


async def resets_at_once(site: Ground, chance: Random) -> None:
    """Connects, says who it would like to be, and resets: nobody is taken for another by that."""
    head = get(b"/health", b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-Proto: https")
    for _ in range(50):
        async with stranger(site) as peer:
            peer.say(head[: chance.randrange(len(head) + 1)])


async def byte_a_second(site: Site, chance: Random) -> None:
    """Sends its head a byte at a time: it is refused when the time for a head is over, not later."""
    async with stranger(site) as peer:
        answer = asyncio.create_task(peer.response())
        for byte in get(b"/health"):
            peer.say(bytes([byte]))
            await asyncio.wait([answer], timeout=TIMEOUTS["head"] / 4)
            if answer.done():
                break
        assert (await answer).status == 408


async def forges_sids(site: Site, chance: Random) -> None:
    """Posts CONNECT packets to transports that never were: refused, and they count as nobody's sessions."""
    before = await site.metric("backend_sessions")
    async with stranger(site) as peer:
        pin = (await polling_sid(peer)).rpartition(b".")[0]
        for _ in range(MANY):
            sid = pin + b"." + uuid.uuid4().hex[:20].encode()
            assert (
                await status(peer, post(PATH + b"polling&sid=" + sid, connect_packet(str(uuid.uuid4()))))
                == 400
            )
    assert await site.metric("backend_sessions") < before + MANY / 2


async def huge_heads(site: Ground, chance: Random) -> None:
    """Heads of 30 KB on one connection are answered, and one above the limit is refused."""
    async with stranger(site) as peer:
        for number in range(16):
            assert (
                await status(peer, get(b"/health", b"X-%d: %b" % (number, bytes([97 + number]) * 30_000)))
                == 200
            )
        assert await status(peer, get(b"/health", b"X: " + b"x" * 40_000)) == 431


async def bytes_as_chunks(site: Ground, chance: Random) -> None:
    """Sends a body in chunks of one byte: taken or refused, but soon, and others do not wait for it."""
    async with stranger(site) as peer:
        body = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
        peer.say(
            get(
                b"/project/file?session_id=" + str(uuid.uuid4()).encode(),
                b"Transfer-Encoding: chunked",
                method=b"POST",
            )
        )
        peer.say(body)
        with contextlib.suppress(Cut):  # what it had sent already may have met a closed connection
            assert 400 <= (await peer.response()).status < 500


async def never_reads(site: Site, chance: Random) -> None:
    """Asks for much again and again and reads nothing: let go when its time is over."""
    before = await site.metric("open_connections")
    async with strangers(site, CROWD) as peers:
        for peer in peers:
            peer.say(get(LARGE) * 20)
        await site.until(lambda: connections(site) > before + CROWD / 2, SOON, "they are there")
        await site.until(lambda: connections(site) < before + CROWD / 2, SOON, "they were let go")


def connections(site: Site) -> float:
    """How many the proxy has of clients."""
    return site.proxy.metric("chainlit_proxy_open_connections")


async def stops_in_a_body(site: Site, chance: Random) -> None:
    """Announces a body and sends half of it: refused when it has said nothing for too long."""
    async with stranger(site) as peer:
        head = get(b"/odd/whole", b"Content-Length: 100", method=b"POST")
        assert await status(peer, head + b"half") == 408


async def asks_many_at_once(site: Ground, chance: Random) -> None:
    """Pipelines requests without reading: each is answered, in order."""
    async with stranger(site) as peer:
        for number in range(MANY):
            peer.say(get(b"/health") + get(b"/%d" % number, b"Max-Forwards: 0", method=b"TRACE"))
        for number in range(MANY):
            assert (await peer.response()).body == b'{"status":"ok"}'
            assert (await peer.response()).body.startswith(b"TRACE /%d HTTP" % number)


async def smuggles(site: Ground, chance: Random) -> None:
    """Requests that two servers could read in two ways: refused, and nothing behind them is read."""
    hidden = get(b"/hidden")
    for lines in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"X: a\r\n b\r\n",
        b"X : a\r\n",
        b"X: a\rb\r\n",
        b"X: a\x00b\r\n",
        b"Host: other\r\n",
    ):
        async with stranger(site) as peer:
            peer.say(b"POST / HTTP/1.1\r\nHost: chat.test\r\n" + lines + b"\r\n0\r\n\r\n" + hidden)
            assert (await peer.response()).status == 400, lines
            await peer.gone()


async def many_fields(site: Ground, chance: Random) -> None:
    """More fields than are taken: refused."""
    async with stranger(site) as peer:
        assert await status(peer, get(b"/health", *(b"X-%d: x" % number for number in range(200)))) == 431


async def comes_in_a_crowd(site: Site, chance: Random) -> None:
    """Opens more connections than one client may: the last are turned away, others are served."""
    began = time.monotonic()
    async with strangers(site, PER_CLIENT) as peers, strangers(site, 1) as others:
        address = peers[0].writer.get_extra_info("sockname")[0]
        async with stranger(site, address) as last:
            seen = await status(last, get(b"/health"))
        in_time = time.monotonic() - began < TIMEOUTS["head"]  # then none was closed for its silence
        assert seen == 429 or (not in_time and seen == 200), seen
        assert await status(others[0], get(b"/health")) == 200


async def names_sessions(site: Site, chance: Random) -> None:
    """Names sessions that never were, where an app's own routes are: they are nobody's load."""
    before = await site.metric("backend_sessions")
    async with stranger(site) as peer:
        for _ in range(MANY):
            name = str(uuid.uuid4()).encode()
            await answered(peer, get(b"/favicon?session_id=" + name, b"X-Session-Id: " + name))
    assert await site.metric("backend_sessions") < before + MANY / 2


async def silent_in_tls(site: Site, chance: Random) -> None:
    """Opens TLS connections and says nothing: they count from the start, and others are served."""
    port = int(site.tls.config["listen"].rpartition(":")[2])
    async with contextlib.AsyncExitStack() as stack:
        address = next_address()
        peers = [await stack.enter_async_context(stranger(site, address, port)) for _ in range(CROWD)]
        ends = [asyncio.create_task(ended(peer)) for peer in peers]
        await eventually(
            lambda: sum(end.done() for end in ends) >= CROWD - PER_TLS_CLIENT,
            TIMEOUTS["head"] - 1,  # later they are closed anyhow
            "those that are too many are turned away",
        )
        await asyncio.to_thread(visit, site)
    await asyncio.wait(ends)


async def ended(peer: Peer) -> None:
    """Wait until the proxy has closed a connection, whatever it says before."""
    with contextlib.suppress(Cut, TimeoutError):
        await peer.rest()


def visit(site: Site) -> None:
    """Somebody asks over TLS, and is answered."""
    with urllib.request.urlopen(
        f"{site.tls.url.replace('http', 'https')}/health", timeout=20, context=site.trust
    ) as answer:
        assert answer.status == 200


async def speaks_tls_to_plain(site: Ground, chance: Random) -> None:
    """Speaks TLS where none is spoken: refused."""
    async with stranger(site) as peer:
        assert await status(peer, HELLO) in {0, 400}


SIMPLE: list[Simple] = [
    half_closes,
    resets_at_once,
    huge_heads,
    many_fields,
    bytes_as_chunks,
    asks_many_at_once,
    smuggles,
    speaks_tls_to_plain,
]
ACTIONS: list[Action] = [
    *SIMPLE,
    byte_a_second,
    stops_in_a_body,
    forges_sids,
    names_sessions,
    never_reads,
    comes_in_a_crowd,
    silent_in_tls,
]
