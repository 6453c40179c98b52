"""A session whose websocket is a stream of HTTP/2 goes on at another instance; its client hears no end."""

from pathlib import Path
from typing import cast

import pytest

from proxy.affinity.backend import AdminState
from tests.dataplane.chat import PATH
from tests.dataplane.frames import Socket
from tests.dataplane.multiplexed import NAME, Browser, Websocket
from tests.dataplane.peers import Peer
from tests.dataplane.shared_chat import AGAIN, ASK, BYE, CONNECT, HELLO, RESUME, TALK, Case, SharedChat, lose
from tests.dataplane.test_evictions import on
from tests.dataplane.world import Test, World, run
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


async def at_a(world: World, client: Browser) -> tuple[Case, Websocket]:
    """A client whose session is at `a`, by a stream of its connection."""
    story: list[tuple[str, bytes]] = []
    chats = {backend.name: SharedChat(backend) for backend in world.backends}
    for chat in chats.values():
        chat.story = story
    case = Case(world, chats)
    websocket = await Websocket.open(client, PATH + b"websocket", b"chainlit_pin=" + world.pin("a"))
    case.socket = Socket(cast("Peer", websocket), client=True)
    await case.socket.hear()
    case.socket.say(CONNECT)
    await case.hears(b'40{"sid":"a"}')
    await world.until(lambda: on(world, "a"))
    story.clear()
    return case, websocket


def play(test: Test, authority: Authority) -> None:
    """Run a test where such websockets are taken, and sessions are handed over."""
    tls = {**authority.issue(NAME), "http2_websockets": True}
    run(test, "ab", tls=tls, affinity={"hand_over": "always"})


@pytest.mark.parametrize("how", ["killed", "ended", "reset", "1012", "down"])
def test_its_instance_is_lost(how: str, authority: Authority) -> None:
    """However that goes, the stream stays open, and requests beside it on the connection are answered."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        case, websocket = await at_a(world, client)
        if how in {"ended", "reset"}:  # else it goes on where it was, which lives
            world.parts.fleet.set_admin_state(world.known("a"), AdminState.DRAIN)
            case.session.sent_away = True
        reason = await lose(case, how)
        await case.greeted()
        await case.said("b", *TALK)
        await case.arrived(reason=reason)
        assert websocket.answer.reset is None
        assert not websocket.answer.whole
        assert (await client.answer(client.ask(b"/", method=b"HEAD"))).status

    play(test, authority)


def test_what_was_said_and_not_taken(authority: Authority) -> None:
    """A message that the instance may not have taken is said again, once."""

    async def test(world: World) -> None:
        client = await Browser.open(world, authority)
        case, _ = await at_a(world, client)
        case.chats["a"].echo = False
        case.socket.say(ASK)
        await world.until(lambda: case.told("a")[-1] == ASK)
        case.story.clear()
        case.kill()
        await case.said("b", HELLO, CONNECT, RESUME, AGAIN, BYE)
        await case.greeted()
        await case.arrived()

    play(test, authority)
