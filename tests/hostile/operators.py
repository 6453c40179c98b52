"""What operators do, rightly and wrongly, while everybody chats: one action each, and what takes it back."""

import asyncio
import json
import signal
import socket
import urllib.error
from contextlib import closing
from random import Random
from typing import Any

import yaml

from tests.dataplane.chat import PATH, connect_packet
from tests.dataplane.peers import Peer, get, post
from tests.hostile.backends import chosen
from tests.hostile.site import PER_CLIENT, Harm, Site
from tests.hostile.strangers import Action, let_go, polling_sid, session, status, strangers
from tests.hostile.transports import made_up
from tests.support.processes import free_port

SOON = 20.0  # seconds for what an operator waits for
RATE, BURST = 100, 800  # requests a second, and at once: more than all chats make in a round
PACKETS = 20
STOOD_STILL = 2.0  # seconds
LINES = 60  # at once, of one client
FLOODS = 4
LONG_PATH = b"/" + b"x" * 3000
LONGEST_PATH = b"/" + b"x" * 30_000
DROPPED = "log_lines_dropped_total"


def posted(site: Site, path: str, body: Any = None) -> tuple[int, Any]:
    """The status and the answer of a command."""
    try:
        return 200, site.proxy.post(path, body)
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, json.loads(error.read() or b"null")


async def drains_and_takes_back(site: Site, chance: Random) -> None:
    """A drain with much time that is called off: nobody has left."""
    name = chance.choice(site.fleet.names)
    path = f"/api/backends/{name}"
    site.may_miss = True
    assert (await site.asked(posted, site, f"{path}/drain", {"timeout": 200, "force": True}))[0] == 200
    assert (await site.asked(site.proxy.backends))[name]["admin_state"] == "drain"
    await site.lap()
    assert (await site.asked(posted, site, f"{path}/ready"))[0] == 200


async def drains_by_force(site: Site, chance: Random) -> None:
    """A drain that is soon over: whoever is there moves, nobody else does, and it ends empty."""
    relay = chosen(site, chance, Harm.SESSIONS)
    path = f"/api/backends/{relay.name}"
    assert (await site.asked(posted, site, f"{path}/drain", {"timeout": 1, "force": True}))[0] == 200

    def empty() -> bool:
        drain = site.proxy.backends()[relay.name]["drain"]
        return bool(drain and drain["empty"])

    try:
        await site.until(empty, SOON, f"{relay.name} empty")
    finally:
        assert (await site.asked(posted, site, f"{path}/ready"))[0] == 200


async def maintains(site: Site, chance: Random) -> None:
    """Takes one out and back in: whoever is there moves, nobody else does."""
    relay = chosen(site, chance, Harm.SESSIONS)
    path = f"/api/backends/{relay.name}"
    assert (await site.asked(posted, site, f"{path}/maintenance", {"force": True}))[0] == 200
    await site.lap()
    assert (await site.asked(posted, site, f"{path}/ready"))[0] == 200


async def reload(site: Site, config: dict[str, Any] | str | bytes, *, good: bool) -> None:
    """Write a file and have it read; it is taken or refused, as it should be."""
    data = yaml.safe_dump(config, sort_keys=False) if isinstance(config, dict) else config
    site.proxy.file.write_bytes(data.encode() if isinstance(data, str) else data)
    code, answer = await site.asked(posted, site, "/api/reload")
    assert (code, answer["applied"]) == ((200, True) if good else (409, False)), answer
    assert await site.metric("config_current") == good


async def reloads(site: Site, chance: Random) -> None:
    """Good files, by the API and by signals that overtake each other: nobody notices."""
    for _ in range(5):
        changed = {
            "balance": {"bound": 1.1 + chance.random()},
            "log": {"format": chance.choice(["console", "json"])},
        }
        await reload(site, site.proxy.config | changed, good=True)
        for _ in range(chance.randrange(3)):
            site.proxy.send(signal.SIGHUP)
    await reload(site, site.proxy.config, good=True)


async def reloads_mistakes(site: Site, chance: Random) -> None:
    """Files with mistakes, each refused as a whole; what was in effect stays."""
    config = site.proxy.config
    taken = site.proxy.config["listen"]
    mistakes: list[dict[str, Any] | str | bytes] = [
        config | {"helth": 1},
        config | {"listen": "a..b:8000"},
        config | {"listen": [taken, site.tls.config["listen"]]},
        config | {"tls": {"cert": "nowhere.crt", "key": "nowhere.key"}},
        config | {"backends": []},
        config | {"backends": config["backends"] * 2},
        config | {"limits": {"head": -1}},
        "",
        "listen: [",
        "- 1\n- 2\n",
        "a: &a [*a]\n",
        chance.randbytes(1000),
    ]
    for mistake in chance.sample(mistakes, len(mistakes)):
        await reload(site, mistake, good=False)
    await reload(site, config, good=True)


async def moves_a_listener(site: Site, chance: Random) -> None:
    """A second address comes and goes; who came by it stays connected, and others notice nothing."""
    port = free_port()
    more = site.proxy.config | {"listen": [site.proxy.config["listen"], f"127.0.0.1:{port}"]}
    await reload(site, more, good=True)
    peer = Peer(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.58", 0)))
    try:
        chat = await session(peer, made_up())
        await reload(site, site.proxy.config, good=True)
        chat.say(b"42" + json.dumps(["connection_successful"]).encode())
        assert b"task_end" in await chat.hear()
    finally:
        await let_go(peer)


async def adds_what_is_not_there(site: Site, chance: Random) -> None:
    """Backends that refuse, that have no name, or that never answer: judged, given nobody, and removed."""
    with closing(deaf()) as listening:
        odd = {
            "refuses": f"http://127.0.0.1:{free_port()}",
            "nowhere": "http://nowhere.invalid:8000",
            "silent": f"http://127.0.0.1:{listening.getsockname()[1]}",
        }
        added = [{"name": name, "url": url} for name, url in odd.items()]
        more = site.proxy.config | {"backends": site.proxy.config["backends"] + added}
        await reload(site, more, good=True)

        def judged() -> bool:
            health = site.proxy.health()
            return health.get("refuses") == "down" and "healthy" not in {health.get(name) for name in odd}

        try:
            await site.until(judged, SOON, "those that are not there are judged")
            await site.lap()
        finally:
            await reload(site, site.proxy.config, good=True)
        await site.until(lambda: not odd.keys() & site.proxy.backends().keys(), SOON, "they are gone")


def deaf() -> socket.socket:
    """A listener that never accepts."""
    return socket.create_server(("127.0.0.1", 0))


async def refuses_polls(site: Site, chance: Random) -> None:
    """Has a limit of requests for a while, over which somebody polls: refused, and that poll is over."""
    limits = {"connections_per_client": PER_CLIENT, "requests_per_second": RATE, "burst": BURST}
    await reload(site, site.proxy.config | {"limits": limits}, good=True)
    try:
        async with strangers(site, PACKETS) as (peer, *others):
            sid = await polling_sid(peer)
            target = PATH + b"polling&sid=" + sid
            assert await status(peer, post(target, connect_packet(made_up()))) == 200
            assert await status(peer, get(target)) == 200
            peer.say(get(b"/", b"Max-Forwards: 0", method=b"OPTIONS") * (3 * BURST))
            while (await peer.response()).status != 429:
                pass
            for other in others:
                other.say(post(target, b"3"))
            answers = [(await other.response()).status for other in others]
            assert 429 in answers, answers
            assert set(answers) <= {200, 400, 429}, answers
    finally:
        await reload(site, site.proxy.config, good=True)


async def stands_still(site: Site, chance: Random) -> None:
    """Stops the proxy for a moment: it blames nobody for what it missed."""
    site.proxy.pause()
    try:
        await asyncio.sleep(STOOD_STILL)  # this is the event
    finally:
        site.proxy.resume()


async def asks_oddly(site: Site, chance: Random) -> None:
    """Asks the admin listener what it does not know, and follows its events without reading them."""
    host, _, port = site.proxy.config["admin"]["listen"].rpartition(":")
    for path, body, expected in (
        ("/api/backends/nobody/drain", {}, 404),
        ("/api/backends/a/drain", {"timeout": -1}, 422),
        ("/api/backends/a/drain", {"timeout": "x", "y": [1]}, 422),
        ("/api/rollout", {}, 409),
        ("/api/nothing", {}, 404),
    ):
        assert (await site.asked(posted, site, path, body))[0] == expected, path
    peers = [Peer(*await asyncio.open_connection(host, int(port))) for _ in range(10)]
    try:
        for peer in peers[:5]:
            peer.say(get(b"/api/stream", b"Host: 127.0.0.1"))
        for peer in peers[5:]:
            peer.say(chance.randbytes(2000))
        await asyncio.gather(*(site.asked(site.proxy.get, "/metrics") for _ in range(10)))
    finally:
        for peer in peers:
            await let_go(peer)


async def asked_for_lines(peers: list[Peer], path: bytes) -> None:
    """Requests that the proxy answers itself, with a line of the log for each."""
    for peer in peers:
        peer.say(get(path, b"Max-Forwards: 0", method=b"OPTIONS") * LINES)
    for peer in peers:
        for _ in range(LINES):
            assert (await peer.response()).status == 200


async def nobody_reads_the_log(site: Site, chance: Random) -> None:
    """The log's reader stops until lines are dropped, and reads again: everybody goes on all the while."""
    site.log.stop()
    before = await site.metric(DROPPED)
    try:
        async with strangers(site, 4) as peers:
            while await site.metric(DROPPED) == before:
                await asked_for_lines(peers, LONG_PATH)
        await site.lap()
    finally:
        site.log.read()
    await site.until(lambda: site.log.has(b" lines were dropped here"), SOON, "the gap is told")


async def floods_the_log(site: Site, chance: Random) -> None:
    """Many requests with the longest paths at once: lines may be dropped, the next ones are written."""
    async with strangers(site, 4) as peers:
        for _ in range(FLOODS):
            await asked_for_lines(peers, LONGEST_PATH)
        mark = b"/%x" % chance.getrandbits(64)
        await asked_for_lines(peers[:1], mark)
    await site.until(lambda: site.log.has(mark), SOON, "the log goes on")


# Those after which sessions may be elsewhere, of which only one is done at a time.
MOVES: list[Action] = [drains_and_takes_back, drains_by_force, maintains]
ACTIONS: list[Action] = [
    reloads,
    reloads_mistakes,
    moves_a_listener,
    adds_what_is_not_there,
    refuses_polls,
    stands_still,
    asks_oddly,
    nobody_reads_the_log,
    floods_the_log,
]
