"""Hostile clients of Engine.IO and of websockets: one action each, bounded, which states what it tests."""

import asyncio
import contextlib
import json
import uuid
from random import Random
from urllib.parse import quote

from proxy.wire.websocket import CLOSE, PONG
from tests.dataplane.chat import PATH, connect_packet
from tests.dataplane.frames import frame, upgrade
from tests.dataplane.peers import Cut, Message, Peer, get, post
from tests.hostile.site import Site
from tests.hostile.strangers import (
    Action,
    Ground,
    Simple,
    answered,
    polling_sid,
    session,
    status,
    stranger,
    strangers,
    stuck,
    websocket,
)
from tests.system.test_odd_ids import odd_ids, posted, told

ROOM = 16 << 20  # bytes that the proxy may need for what a client sends before it is refused or held back
PONGS = 32 << 20
CROWD = 20
LONG_ID = "x" * 31_000


def made_up() -> str:
    """A session id as a page makes it."""
    return str(uuid.uuid4())


async def gone(peer: Peer) -> None:
    """Whatever else comes, the connection is closed in the end."""
    with contextlib.suppress(Cut):
        await peer.rest()


async def half_closes_websocket(site: Ground, chance: Random) -> None:
    """A websocket's client that closes its side only is let go when its instance has noticed."""
    async with stranger(site) as peer:
        await session(peer, made_up())
        peer.half_close()
        await gone(peer)


async def resets_anywhere(site: Ground, chance: Random) -> None:
    """Resets before, in and after each step of a connection: nobody hears of it, and nothing stays."""
    async with strangers(site, CROWD) as peers:  # all at once: who waits for a turn is closed for its silence
        await asyncio.gather(*(goes_so_far(peer, number % 5) for number, peer in enumerate(peers)))


async def goes_so_far(peer: Peer, step: int) -> None:
    """Goes so many steps of a connection."""
    match step:
        case 0:
            peer.say(upgrade(PATH + b"websocket"))
        case 1:
            await websocket(peer)
        case 2:
            (await websocket(peer)).say(connect_packet(made_up()))
        case 3:
            await session(peer, made_up())
            peer.say(frame(b"42" + json.dumps(["x" * 1000]).encode(), masked=True)[:500])
        case _:
            sid = await polling_sid(peer)
            peer.say(post(PATH + b"polling&sid=" + sid, connect_packet(made_up())))


async def odd_session_ids(site: Site, chance: Random) -> None:
    """Names folders, nothing, or 31 KB as its session: refused on every way in, and no folder goes."""
    outside = site.folder / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "kept").write_text("kept")
    names = [*odd_ids(outside, site.folder / "root-a" / ".files"), LONG_ID]
    await asyncio.gather(*(odd_session_id(site, name) for name in names))
    assert (outside / "kept").read_text() == "kept"


async def odd_session_id(site: Site, name: str) -> None:
    """One of them, on every way."""
    url = site.proxy.url
    packet = "40" + json.dumps({"sessionId": name, "clientType": "webapp"})
    assert await asyncio.to_thread(told, url, name) == "1008"
    assert await asyncio.to_thread(posted, url, packet) == 400
    async with stranger(site) as peer:
        query = b"/project/file?session_id=" + quote(name, safe="").encode()
        assert 400 <= await status(peer, post(query, b"x", b"Content-Type: text/plain")) < 500
    async with stranger(site) as peer:
        assert 400 <= await status(peer, action_of(name)) <= 500


def action_of(name: str) -> bytes:
    """The press of a button in a session."""
    body = json.dumps(
        {"sessionId": name, "action": {"name": "act", "payload": {}, "label": "x", "tooltip": ""}}
    )
    return post(b"/project/action", body.encode(), b"Content-Type: application/json")


async def odd_sids(site: Ground, chance: Random) -> None:
    """Names no transport, a very long one, or one at an odd spelling of the path: an error of its own."""
    made = uuid.uuid4().hex[:20].encode()
    for query in (b"&sid=", b"&sid=" + b"s" * 31_000, b"&sid=" + made, b"&sid=." + made, b"&sid=%00"):
        async with stranger(site) as peer:
            assert await status(peer, get(PATH + b"polling" + query)) in {200, 400, 414, 431}, query[:40]
    async with stranger(site) as peer:
        odd = PATH.replace(b"/socket.io/", b"/socket%2Eio/")
        assert await status(peer, get(odd + b"polling&sid=" + made)) in {400, 404}


async def forged_pins(site: Ground, chance: Random) -> None:
    """Shows pins that nobody gave: as if it had none."""
    pins = [b"", b"x" * 31_000, chance.randbytes(8).hex().encode(), b'"', b"a.b.c", b"\xff\xfe"]
    async with stranger(site) as peer:
        for pin in pins:
            answer = await answered(peer, get(b"/health", b"Cookie: chainlit_pin=" + pin))
            assert answer.status == 200, (pin[:40], answer)


async def another_namespace(site: Ground, chance: Random) -> None:
    """Connects a namespace that is not the page's, then the page's: the session is taken as usual."""
    async with stranger(site) as peer:
        socket = await websocket(peer)
        await socket.hear()
        socket.say(b"40/other,{}")
        assert (await socket.hear()).startswith(b"44/other")
        socket.say(connect_packet(made_up()))
        assert (await socket.hear()).startswith(b"40")


async def odd_frames(site: Ground, chance: Random) -> None:
    """Breaks the rules of websockets before and after its session: only the own connection ends by it."""
    odd = [
        frame(b"40{}"),  # not masked
        b"\xc1\x80\x00\x00\x00\x00",  # a reserved bit
        b"\x83\x80\x00\x00\x00\x00",  # an opcode that nobody knows
        b"\x81\xff\x7f" + b"\xff" * 7 + b"\x00\x00\x00\x00",  # a length of 2^63
        frame(b"\xff\xfe", masked=True),  # text that is none
        frame(b"\x03", opcode=CLOSE, masked=True),  # half a code
        frame(b"x" * 200, opcode=PONG, masked=True),  # a long control frame
        frame(b"40", masked=True, final=False) + frame(b"42", masked=True),  # a fragment, then a whole one
    ]
    for raw in odd:
        async with stranger(site) as peer:
            await websocket(peer)
            peer.say(raw).half_close()
            await gone(peer)
        async with stranger(site) as peer:
            await session(peer, made_up())
            peer.say(raw).half_close()
            await gone(peer)


async def pongs_before_connect(site: Site, chance: Random) -> None:
    """Sends pongs instead of its CONNECT packet: little of them is kept."""
    async with stranger(site) as peer:
        await websocket(peer)
        before = (await site.size())[1]
        pongs = frame(b"x" * 120, opcode=PONG, masked=True)
        peer.say(pongs * (PONGS // len(pongs)))
        await stuck(peer)
        assert (await site.size())[1] - before < ROOM


async def many_separators(site: Site, chance: Random) -> None:
    """Posts a payload that is nothing but separators: refused, and others do not wait for it."""
    async with stranger(site) as peer:
        sid = await polling_sid(peer)
        got = await status(peer, post(PATH + b"polling&sid=" + sid, b"\x1e" * 900_000))
        assert got in {400, 413}, got


async def polls_twice(site: Ground, chance: Random) -> None:
    """Polls a transport twice at once, and goes when one of the polls is over."""
    async with stranger(site) as first, stranger(site) as second:
        sid = await polling_sid(first)
        assert await status(second, post(PATH + b"polling&sid=" + sid, connect_packet(made_up()))) == 200

        async def poll(peer: Peer) -> Message | None:
            with contextlib.suppress(Cut):
                return await answered(peer, get(PATH + b"polling&sid=" + sid))
            return None

        polls = [asyncio.create_task(poll(peer)) for peer in (first, second)]
        await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(polls)  # their connections are gone


async def leaves_in_an_answer(site: Ground, chance: Random) -> None:
    """Resets in the middle of a long answer and never comes back: what is kept for it has its bounds."""
    async with stranger(site) as peer:
        socket = await session(peer, made_up())
        message = {
            "id": made_up(),
            "threadId": "",
            "name": "user",
            "type": "user_message",
            "output": "s stream 300 0.01",
            "createdAt": "2026-01-01T00:00:00Z",
        }
        packet = ["client_message", {"message": message, "fileReferences": []}]
        socket.say(b"42" + json.dumps(packet).encode())
        while b"stream_token" not in await socket.hear():
            pass


SIMPLE: list[Simple] = [
    half_closes_websocket,
    resets_anywhere,
    odd_sids,
    forged_pins,
    another_namespace,
    odd_frames,
    polls_twice,
    leaves_in_an_answer,
]
ACTIONS: list[Action] = [
    *SIMPLE,
    odd_session_ids,
    pongs_before_connect,
    many_separators,
]
