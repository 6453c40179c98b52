"""What an operator sees on a terminal: the bar of a drain, and the live picture of `top`."""

import asyncio
import re

import pytest

from tests.support.clients import Clients
from tests.support.instances import Fleet
from tests.support.link import KINDS, Transports
from tests.support.proxy_process import ProxyProcess
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

pytestmark = pytest.mark.system

BAR = re.compile(r"a ([#.]{30}) (\d+) sessions?, (\d+) s left")
HOME, ENTER, LEAVE = "\x1b[H", "\x1b[?1049h", "\x1b[?1049l"
CODES = re.compile(r"\x1b\[[?0-9]*[A-Za-z]")


def pictures(text: str) -> list[list[str]]:
    """The lines of each whole picture, without what moves the cursor."""
    return [CODES.sub("", picture).splitlines() for picture in text.split(HOME)[1:-1]]


def test_a_drain_shows_a_bar(fleet: Fleet, proxy: ProxyProcess) -> None:
    """It fills on its one line while people leave, with what is left; then one line says how it ended."""

    def watched() -> tuple[int, str]:
        with Terminal("drain", "a", "--wait", "--timeout", "60", "--admin", proxy.admin) as terminal:
            return terminal.end(), terminal.text

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            # Of a websocket that began by polling it is known only seconds later that no poll follows.
            kinds = [kind for kind in KINDS if kind.transports is Transports.WEBSOCKET]
            chats = [await clients.open_until_on("a", kinds=kinds) for _ in range(3)]
            watching = asyncio.create_task(asyncio.to_thread(watched))
            await eventually(lambda: proxy.backends()["a"]["admin_state"] == "drain", 20, "it drains")
            for opened in chats:
                await asyncio.sleep(1)  # longer than two pictures of the bar are apart
                await clients.close(opened[-1])
            code, text = await watching
            assert code == 0, text
            *shown, last = text.replace("\x1b[K", "").splitlines()
            bars = BAR.findall(text)
            assert len(bars) > 2, text
            done = [bar.count("#") for bar, _, _ in bars]
            assert done == sorted(done)
            assert done[-1] > done[0]
            left = [int(seconds) for _, _, seconds in bars]
            assert left == sorted(left, reverse=True)
            assert left[0] <= 60
            assert text.count("\n") == 2, "the bar moved to another line"
            assert re.fullmatch(r"a is drained: \d+ sessions? moved", last), (shown, last)

    asyncio.run(scenario())


def test_top_is_live(fleet: Fleet, proxy: ProxyProcess) -> None:
    """A new picture each second on the other screen, with what happens meanwhile; Ctrl-C ends it well."""

    async def scenario(terminal: Terminal) -> None:
        async with Clients(proxy.url) as clients:
            await clients.open_many(KINDS)
            text = await asyncio.to_thread(
                terminal.read_until,
                lambda text: re.search(r"\n[abc] .*#.* [1-9]\d* .*\x1b\[H", text, re.DOTALL),
            )
            shown = "\n".join(pictures(text)[-1])
            assert "SESSIONS" in shown
            assert "FRAMES/S" in shown

    with Terminal("top", "--admin", proxy.admin) as terminal:
        empty = pictures(terminal.read_until(lambda text: text.count(HOME) > 2))[0]
        assert [line.split()[:3] for line in empty[2:5]] == [
            [name, "healthy", "ready"] for name in fleet.names
        ]
        asyncio.run(scenario(terminal))
        terminal.interrupt()
        assert terminal.end() == 0
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("size", [(24, 80), (24, 60), (4, 40)], ids=str)
def test_top_fits(proxy: ProxyProcess, size: tuple[int, int]) -> None:
    """No line wraps and none scrolls away; `q` ends it, and the screen is as it was before."""
    with Terminal("top", "--admin", proxy.admin, size=size) as terminal:
        terminal.read_until(lambda text: text.count(HOME) > 2)
        terminal.press("xq")
        assert terminal.end() == 0
        before, _, rest = terminal.text.partition(ENTER)
        _, _, after = rest.partition(LEAVE)
        assert (before.strip(), after.strip()) == ("", "")
        lines, columns = size
        for picture in pictures(rest):
            assert max(map(len, picture)) <= columns
            assert 3 <= len(picture) <= lines


def test_a_terminal_that_cannot_draw(proxy: ProxyProcess) -> None:
    """Pictures and lines stand below each other there, without a code that would be shown as text."""
    with Terminal("top", "--admin", proxy.admin, kind="dumb") as terminal:
        terminal.read_until(lambda text: text.count("BACKEND") > 1)
        terminal.interrupt()
        assert terminal.end() == 0
        assert "\x1b" not in terminal.text
    with Terminal("drain", "a", "--wait", "--admin", proxy.admin, kind="dumb") as terminal:
        assert terminal.end() == 0
        assert terminal.text.splitlines() == ["a is drained: 0 sessions moved"]


def test_a_proxy_that_restarts_is_waited_for(proxy: ProxyProcess) -> None:
    """`top` shows that it is away and then goes on; `events --follow` tells all that happens afterwards."""
    watching = Terminal("top", "--admin", proxy.admin, size=(24, 80))
    following = Terminal("events", "--follow", "--admin", proxy.admin)
    with watching, following:
        following.read_until(lambda text: "is healthy" in text)
        watching.read_until(lambda text: text.count(HOME) > 2)
        assert proxy.stop() == 0
        watching.read_until(lambda text: "connection lost, trying again" in text)
        following.read_until(lambda text: "connection lost, trying again" in text)
        told = len(following.text)
        proxy.start()
        watching.read_until(lambda text: "q ends" in text.rpartition("connection lost")[2])
        following.read_until(lambda text: text.count("is healthy", told) == len(proxy.backends()))
        assert "connected again" in following.text
        watching.press("q")
        following.interrupt()
        assert (watching.end(), following.end()) == (0, 0)
