"""What a hand-over does to others: its client that speaks, requests of its session, an instance with many.

And where there is none.
"""

import asyncio
import logging

import pytest

from proxy.config.values import HandOver
from proxy.dataplane.ends import ClientEnd
from proxy.dataplane.hand_over import Waits
from proxy.dataplane.hand_over_counts import Reason, Result
from proxy.dataplane.patience import never
from proxy.dataplane.websocket_hand_over import WebsocketHandOver
from proxy.wire.engineio import UPGRADE
from tests.dataplane.chat import Tab, connect_packet
from tests.dataplane.frames import frame
from tests.dataplane.peers import get
from tests.dataplane.shared_chat import CONNECT, GREETING, HELLO, RESUME, TALK, Case, half, play

SECONDS = 0.4  # that a client is held where a test waits for the end of it


def test_a_client_that_says_much_meanwhile() -> None:
    """It is not read, so it is slowed down and nothing is kept here; all of it arrives, in order."""
    packets = [b'42["n%d","%b"]' % (number, b"x" * 10_000) for number in range(800)]

    async def test(case: Case) -> None:
        gate = case.chats["b"].hold("restore")
        case.chats["b"].echo = False
        case.kill()
        await case.world.until(lambda: case.asked("restore"))
        before = case.tunnel.received[0]
        talking = asyncio.create_task(
            case.socket.peer.say_slowly(b"".join(frame(p, masked=True) for p in packets))
        )
        await case.world.breathe()
        assert case.tunnel.received[0] == before
        assert not talking.done()
        gate.set()
        await case.greeted()
        await talking
        await case.world.until(lambda: case.told("b")[-1] == packets[-1])
        assert case.told("b")[4:] == packets
        await case.arrived()

    play(test)


def test_pings() -> None:
    """The client gets one with the answer to CONNECT; what it answers goes nowhere, later pongs go on."""

    async def test(case: Case) -> None:
        case.kill()
        await case.greeted()
        await case.arrived()
        transport = list(case.chats["b"].transports.values())[-1]
        case.socket.say(b"3", b'42["x"]')
        await case.hears(b'42["echo","b"]')
        assert transport.quiet == []
        transport.push(b"2")
        await case.hears(b"2")
        case.socket.say(b"3")
        await case.world.until(lambda: transport.quiet == [b"3"])

    play(test)


def test_a_client_that_is_held_for_long() -> None:
    """No instance pings it meanwhile: the proxy does, once in a while, and each answer goes nowhere."""

    async def test(case: Case) -> None:
        gate = case.chats["b"].hold("hello")
        case.kill()
        await case.world.until(lambda: case.asked("hello"))
        tunnel = case.tunnel
        for _ in range(2):
            tunnel.pinged_at -= 1000
            tunnel.tick(case.world.now())
            await case.hears(b"2")
            tunnel.tick(case.world.now())
        case.socket.say(b"3", b"3")
        gate.set()
        await case.greeted()
        case.socket.say(b"3")
        await case.arrived()
        assert list(case.chats["b"].transports.values())[-1].quiet == []
        assert isinstance(tunnel._down_end, ClientEnd)
        assert tunnel._down_end.packets.owed_pongs == 0

    play(test)


ATTACHED = b'451-["file",{"_placeholder":true,"num":0}]'
DONE = b"43/chainlit-proxy,0[true]"


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_greeting_with_attachments(size: int) -> None:
    """The client gets them behind their packet, whether or not the session has gone on in between."""

    async def test(case: Case) -> None:
        case.chats["b"].hold("resume")
        case.kill()
        await case.world.until(lambda: case.asked("resume"))
        await case.hears(b"2", b'40{"sid":"b"}')
        socket, binary = case.old("b"), b"x" * size
        socket.peer.say(frame(ATTACHED) + frame(binary, opcode=2) + frame(ATTACHED) + frame(DONE))
        await case.hears(ATTACHED, binary)
        await case.world.until(lambda: case.tunnel.hand_over is None)
        socket.say(binary, opcode=2)
        await case.hears(ATTACHED, binary)
        await case.world.until(lambda: case.tunnel.can_move)
        case.nothing_is_left()

    play(test)


def test_what_comes_right_behind_the_greeting() -> None:
    """It is heard in order; and if it is that this instance ends too, the next one goes on."""

    async def test(case: Case) -> None:
        case.chats["a"].echo = False
        for name in "bc":
            case.chats[name].hold("resume")
        case.kill()
        await case.world.until(lambda: case.asked("resume"))
        first = case.story[0][0]
        (other,) = {"b", "c"} - {first}
        case.chats[other].hold("resume").set()
        await case.hears(b"2", b'40{"sid":"%b"}' % first.encode())
        end = frame((1012).to_bytes(2, "big"), opcode=8)
        case.old(first).peer.say(frame(GREETING) + frame(DONE) + frame(b'42["more"]') + end)
        case.socket.say(b'42["meanwhile"]')
        await case.hears(GREETING, b'42["more"]')
        await case.greeted(other)
        await case.hears(b'42["echo","%b"]' % other.encode())
        assert case.told(other)[-1] == b'42["meanwhile"]'
        counts = case.world.plane.site.hand_overs.counts
        done = {(Reason.LOST, Result.DONE): 1, (Reason.ENDED, Result.DONE): 1}
        await case.world.until(lambda: counts.results == done, f"{counts}")

    play(test, "abc")


def test_a_greeting_that_is_cut_off() -> None:
    """What the client has of it is whole packets; the next instance begins anew."""

    async def test(case: Case) -> None:
        world = case.world
        gates = {name: case.chats[name].hold("resume") for name in "bc"}
        case.kill()
        await world.until(lambda: case.asked("resume"))
        first = case.story[0][0]
        (other,) = {"b", "c"} - {first}
        await case.hears(b"2", b'40{"sid":"%b"}' % first.encode())
        case.old(first).say(b'42["one"]')
        case.old(first).say(ATTACHED)
        case.old(first).peer.say(half(b'42["two"]', masked=False)[0])
        await case.hears(b'42["one"]')
        case.kill(first)
        gates[other].set()
        await case.greeted(other)
        await case.arrived(other)

    play(test, "abc")


def test_a_long_packet_is_half_out() -> None:
    """Nobody can go on behind it: the client connects anew."""

    async def test(case: Case) -> None:
        long = frame(b'42["' + b"x" * 300_000 + b'"]')
        case.old().peer.say(long[:-10])
        got = await case.socket.peer.read(len(long) - 10)
        assert got == long[:-10]
        case.kill()
        await case.socket.peer.gone()
        assert not case.world.plane.site.hand_overs.counts.results

    play(test)


@pytest.mark.parametrize("mode", ["never", "auto"])
def test_where_it_is_not_wanted(mode: str) -> None:
    """Never, or where nothing is shared: nothing is kept, and the client's connection ends as ever."""

    async def test(case: Case) -> None:
        assert case.tunnel.kept is None
        case.kill()
        await case.socket.peer.gone()
        assert case.story == []

    play(test, mode=mode)


@pytest.mark.parametrize("planned", [True, False])
def test_where_it_is_wanted_no_more(planned: bool) -> None:
    """A configuration that is read again holds for clients that are here already."""

    async def test(case: Case) -> None:
        assert case.tunnel.kept is not None
        config = case.world.plane.site.config
        affinity = config.affinity.model_copy(update={"hand_over": HandOver.NEVER})
        case.world.plane.site.hand_overs.configure(config.model_copy(update={"affinity": affinity}))
        if planned:
            case.send_away()
            assert await case.socket.hear() == (1012).to_bytes(2, "big")
        else:
            case.kill()
            await case.socket.peer.gone()
        assert case.story == []

    play(test)


def test_another_namespace() -> None:
    """What a client has to do with in a namespace of the app's own nobody else can go on with."""

    async def test(case: Case) -> None:
        case.socket.say(b"40/admin,")
        await case.hears(b'40/admin,{"sid":"a"}')
        case.kill()
        await case.socket.peer.gone()
        assert case.story == [("a", b"40/admin,")]

    play(test)


def test_an_upgrade_that_is_not_finished() -> None:
    """Its client may still poll."""

    async def test(case: Case) -> None:
        world = case.world
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        await tab.listen(b'40{"sid":"a"}')
        socket = await tab.socket()
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        await world.until(lambda: world.plane.tunnels)
        case.kill()
        await socket.peer.gone()
        await world.until(lambda: not world.plane.tunnels)

    play(test, connect=False)


def test_an_upgraded_transport() -> None:
    """Connected by polls: its CONNECT was said by a POST, and its sid ends with its instance."""

    async def test(case: Case) -> None:
        world = case.world
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(CONNECT)).response()
        await tab.listen(b'40{"sid":"a"}')
        case.socket = await tab.socket()
        case.socket.say(b"2probe")
        await case.hears(b"3probe")
        case.socket.say(UPGRADE)
        await world.until(lambda: case.tunnel.can_move)
        case.story.clear()
        case.kill()
        await case.greeted()
        await case.said("b", *TALK)
        await case.arrived()
        answer = await world.ask(get(tab.path + b"polling&sid=" + tab.sid, *tab.fields))
        assert answer.status == 400

    play(test, connect=False)


def test_no_more_than_a_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each instance takes so many at once; who waits for a turn is not held meanwhile, as far as counted."""
    monkeypatch.setattr("proxy.dataplane.hand_over.AT_ONCE", 2)

    async def test(case: Case) -> None:
        world = case.world
        sockets = [case.socket]
        for number in range(4):
            tab = Tab(world, world.cookie("a"))
            socket = await tab.socket()
            await socket.hear()
            socket.say(connect_packet(f"session-{number}"))
            assert await socket.hear() == b'40{"sid":"a"}'
            sockets.append(socket)
        await world.until(lambda: all(tunnel.kept for tunnel in world.plane.tunnels))
        case.story.clear()
        gate = case.chats["b"].hold("resume")
        case.kill()
        resumes = ("b", RESUME)
        await world.until(lambda: case.story.count(resumes) == 2)
        await asyncio.sleep(2 * SECONDS)
        assert case.story.count(("b", HELLO)) == 2
        gate.set()
        for socket in sockets:
            case.socket = socket
            await case.greeted()
        await world.until(lambda: all(tunnel.hand_over is None for tunnel in world.plane.tunnels))
        assert world.plane.site.hand_overs.counts.results == {(Reason.LOST, Result.DONE): 5}
        assert (world.known("a").sessions, world.known("b").sessions) == (0, 5)
        assert (world.known("a").tunnels, world.known("b").tunnels) == (0, 5)
        case.nothing_is_left()

    play(test, hold=SECONDS)


def test_one_that_may_have_ended_an_instance_goes_alone() -> None:
    """Of those only one is at a gate, and all others pass: it takes nobody along that may have, too."""

    async def test(case: Case) -> None:
        waits, backend = Waits(), case.world.known("a")
        inside: list[str] = []
        left = asyncio.Event()

        async def pass_through(name: str, *, alone: bool) -> None:
            async with waits.gate(backend, never, alone=alone):
                inside.append(name)
                await left.wait()

        async with asyncio.TaskGroup() as tasks:
            for name in ("one", "two"):
                tasks.create_task(pass_through(name, alone=True))
            tasks.create_task(pass_through("other", alone=False))
            await case.world.until(lambda: len(inside) == 2)
            await case.world.breathe()
            assert inside == ["one", "other"]
            left.set()
        assert inside == ["one", "other", "two"]

    play(test)


def test_requests_wait_for_it() -> None:
    """A request that names the session is held until it has arrived, and goes where it went."""

    async def test(case: Case) -> None:
        gate = case.chats["b"].hold("restore")
        asked = len(case.chats["b"].asked("locate"))
        case.kill()
        await case.world.until(lambda: case.asked("restore"))
        client = (await case.world.client()).say(get(b"/project/file/x?session_id=session-S"))
        await case.world.until(lambda: case.world.plane.site.arrivals._held == 1)
        assert len(case.chats["b"].asked("locate")) == asked
        gate.set()
        await case.greeted()
        assert (await client.response()).status == 404
        assert len(case.chats["b"].asked("locate")) == asked + 1
        await case.arrived()

    play(test)


def test_what_is_kept_is_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the head with its cookies nor the CONNECT is in anything's repr, or in the log."""

    async def test(case: Case) -> None:
        world = case.world
        case.socket = await Tab(world, world.cookie("a") + b"; access_token=secret").socket()
        await case.socket.hear()
        case.socket.say(CONNECT)
        await case.hears(b'40{"sid":"a"}')
        await world.until(lambda: case.tunnel.kept)
        kept = case.tunnel.kept
        assert kept is not None
        assert b"access_token=secret" in kept.head
        assert kept.connect == CONNECT
        gate = case.chats["b"].hold("restore")
        case.story.clear()
        case.kill()
        await world.until(lambda: case.asked("restore"))
        over = case.tunnel.hand_over
        assert isinstance(over, WebsocketHandOver)
        assert over._new is not None
        things = [kept, case.tunnel, over, over._new, over._new._machine, case.tunnel.untaken]
        for thing in (*things, world.plane.site.hand_overs, case.tunnel._down_end, case.tunnel._up_end):
            assert "secret" not in repr(thing)
            assert "session-S" not in repr(thing)
        gate.set()
        await case.greeted()

    caplog.set_level(logging.DEBUG)
    play(test, connect=False)
    assert "secret" not in caplog.text
