"""What goes wrong with instances, and between them and the proxy: one action each, which also mends it.

An action says first what the chats of its instance may notice of it. It goes on until the proxy has seen what
was done, or everybody was answered meanwhile, and never for a time.
"""

import asyncio
from random import Random

from tests.dataplane.peers import Cut, get
from tests.hostile.answers import CUT, ODD_ANSWERS
from tests.hostile.relay import Relay
from tests.hostile.site import NAMES, Harm, Site
from tests.hostile.strangers import Action, stranger, stuck
from tests.support.proxy_with_names import ProxyWithNames

JUDGED = 30.0  # seconds until a verdict has changed
STARTS = 40.0  # seconds that an instance takes to start
STALLED = 32 << 20  # bytes that nobody takes


def chosen(site: Site, chance: Random, harm: Harm) -> Relay:
    """The instance that it is done to, and the relay before it."""
    relay = site.relays[chance.choice(list(site.relays))]
    site.harms(relay.name, harm)
    return relay


async def judged(site: Site, name: str, verdict: str) -> None:
    """Wait until the proxy thinks so of an instance."""
    await site.until(lambda: site.proxy.health().get(name) == verdict, JUDGED, f"{name} {verdict}")


async def half_closes(site: Site, chance: Random) -> None:
    """Says no more on any connection, and still reads: its clients connect anew, in their sessions."""
    relay = chosen(site, chance, Harm.CONNECTIONS)
    for pair in list(relay.pairs):
        pair.half_close()
    await site.lap()


async def resets_all(site: Site, chance: Random) -> None:
    """Resets all connections, as a firewall that has lost its table: likewise."""
    relay = chosen(site, chance, Harm.CONNECTIONS)
    for pair in list(relay.pairs):
        pair.proxy.reset()
    await site.lap()


async def dies_in_a_frame(site: Site, chance: Random) -> None:
    """Breaks each connection in the middle of what it says next there: likewise, and nobody gets a half."""
    relay = chosen(site, chance, Harm.CONNECTIONS)
    for pair in list(relay.pairs):
        pair.dies = True
    await site.lap()
    for pair in relay.pairs:
        pair.dies = False


async def freezes(site: Site, chance: Random) -> None:
    """Stands still until it is judged: nobody new is placed there, and who is there stays.

    When it goes on, Python's event loop does what is due before it reads: so it closes connections that were
    idle for too long, though requests have come there meanwhile. Those fail.
    """
    relay = chosen(site, chance, Harm.POLLS)
    instance = site.fleet[relay.name]
    instance.pause()
    try:
        await judged(site, relay.name, "degraded")
    finally:
        instance.resume()


async def loses_its_name(site: Site, chance: Random) -> None:
    """Its name does not resolve while everybody is answered: the address that worked last is used."""
    relay = chosen(site, chance, Harm.NOTHING)
    try:
        for proxy in with_names(site):
            proxy.know(*(host for name, host in site.hosts.items() if name != relay.name))
        await site.lap()
    finally:
        for proxy in with_names(site):
            proxy.know(*proxy.hosts)


async def loses_its_route(site: Site, chance: Random) -> None:
    """No route leads to it until it is judged: what is open stays, and nobody is moved."""
    relay = chosen(site, chance, Harm.POLLS)
    try:
        for proxy in with_names(site):
            proxy.know(*proxy.hosts, without_route=site.hosts[relay.name])
        await judged(site, relay.name, "degraded")
    finally:
        for proxy in with_names(site):
            proxy.know(*proxy.hosts)


def with_names(site: Site) -> list[ProxyWithNames]:
    """The proxies, whose names the test rules."""
    return [proxy for proxy in site.proxies if isinstance(proxy, ProxyWithNames)]


async def fills_its_backlog(site: Site, chance: Random) -> None:
    """Accepts nothing more until it is judged: what is open stays, and nobody is moved."""
    relay = chosen(site, chance, Harm.POLLS)
    await relay.deafen()
    try:
        await judged(site, relay.name, "degraded")
    finally:
        relay.hear()


async def passes_bytes(site: Site, chance: Random) -> None:
    """The beginning of whatever either side says arrives one byte at a time: it is understood as ever."""
    relay = chosen(site, chance, Harm.NOTHING)
    site.may_miss = True  # the proxy waits a second for what an instance has said to a lost client
    relay.bytewise = True
    try:
        await site.lap()
    finally:
        relay.bytewise = False


async def takes_nothing(site: Site, chance: Random) -> None:
    """Reads nothing of an upload: who sends it waits, and the proxy does not hold what nobody takes."""
    async with stranger(site) as peer:
        before = (await site.size())[1]
        peer.say(get(b"/odd/stall", b"Content-Length: %d" % STALLED, method=b"POST") + bytes(STALLED))
        assert await stuck(peer) > 0
        assert (await site.size())[1] - before < STALLED / 2


async def reads_late(site: Site, chance: Random) -> None:
    """Reads an upload, and says 100, later than a client may pause: it was not the client who was late."""
    async with stranger(site) as peer, stranger(site) as careful:
        head = get(b"/odd/late", b"Content-Length: %d" % STALLED, method=b"POST")
        peer.say(head + bytes(STALLED))
        careful.say(get(b"/odd/late_continue", b"Content-Length: 4", b"Expect: 100-continue", method=b"POST"))
        assert (await careful.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        assert (await careful.say(b"body").response()).status == 200
        assert (await peer.response()).status == 200


async def is_killed(site: Site, chance: Random) -> None:
    """Ends and comes back: its sessions begin anew elsewhere, and no other does."""
    relay = chosen(site, chance, Harm.SESSIONS)
    instance = site.fleet[relay.name]
    instance.kill9()
    await relay.close()
    await judged(site, relay.name, "down")
    instance.launch()  # in this thread: see `support.processes`
    await asyncio.to_thread(instance.wait_ready, STARTS)
    relay.open()


async def answers_oddly(site: Site, chance: Random) -> None:
    """Answers in every way that it should not: to who asked, and to nobody else."""
    site.tell("      odd answers")
    for odd in chance.sample(ODD_ANSWERS, len(ODD_ANSWERS)):
        async with stranger(site) as peer:
            try:
                answer = await peer.say(get(b"/odd/" + odd.name.encode())).response()
                seen = answer.status
                assert odd.body in {b"", answer.body}, (odd.name, answer)
            except Cut:
                seen = CUT
            # What is seen to be wrong before anything was passed on is told so.
            assert seen == odd.status or (seen, odd.status) == (502, CUT), (odd.name, seen)
            async with stranger(site, "127.0.0.1") as other:  # may be given the same connection
                assert (await other.say(get(b"/health")).response()).status == 200, odd.name


ACTIONS: list[Action] = [
    half_closes,
    resets_all,
    dies_in_a_frame,
    freezes,
    fills_its_backlog,
    passes_bytes,
    takes_nothing,
    reads_late,
    is_killed,
    answers_oddly,
    *([loses_its_name, loses_its_route] if NAMES else []),
]
