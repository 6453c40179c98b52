"""The proxy itself is replaced by a new process on the same port, or told to go."""

import asyncio
import signal
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import aiohttp
import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import KINDS, Transports
from tests.support.processes import free_port
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.size import sized
from tests.support.waiting import Stopwatch, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(sized(300, in_full=1200))]

UPGRADES = sized(4, in_full=20)
LOAD = sized(len(KINDS), in_full=300)  # sessions that each upgrade moves
SHUTDOWN = sized(5, in_full=15)  # seconds: 20 sessions in a second
CROWD = sized(100, in_full=300)
VISITORS = 4
CLOSE_CODES = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING}


class Visitors:
    """Who asks for a page again and again, each time on a connection of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: Counter[object] = Counter()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`."""
        await asyncio.gather(*(self._visit() for _ in range(VISITORS)))

    def stop(self) -> None:
        """No more visits."""
        self._over.set()

    async def _visit(self) -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            while not self._over.is_set():
                try:
                    async with http.get(f"{self.url}/project/translations") as response:
                        await response.read()
                        self.answers[response.status] += 1
                except aiohttp.ClientError as error:
                    self.answers[repr(error)] += 1


def test_upgrades_refuse_nobody(fleet: Fleet, make_proxy: MakeProxy, tmp_path: Path) -> None:
    """Old and new share the port, the old one leaves: every connection is taken, every session goes on."""
    proxy: ProxyProcess = make_proxy(reuse_port=True, timeouts={"shutdown": SHUTDOWN})

    async def scenario() -> None:
        old = proxy
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), LOAD))
            visitors = Visitors(proxy.url)
            visiting = asyncio.create_task(visitors.run())
            for number in range(UPGRADES):
                config = old.config | {"admin": {"listen": f"127.0.0.1:{free_port()}"}}
                new = ProxyProcess(config, tmp_path, f"upgrade{number}")
                try:
                    await asyncio.to_thread(new.start)
                    assert await asyncio.to_thread(old.stop) == 0, old.tail()
                finally:
                    if number == UPGRADES - 1 or not new.running:
                        visitors.stop()
                old = new
            await visiting
            try:
                assert set(visitors.answers) == {200}, visitors.answers
                assert visitors.answers[200] > 20 * UPGRADES
                await each(chats, lambda chat: chat.resume(within=60))
                for chat in chats:
                    chat.check_unmoved(fleet.journal)
            finally:
                old.kill9()

    asyncio.run(scenario())


def nobody_idles(old: ProxyProcess) -> bool:
    """Whether the old process has closed all that it was to close: what is said there as it does is lost."""
    taken_over = "another process has taken over" in old.log.read_text()
    return taken_over and old.metric("chainlit_proxy_open_connections") <= old.metric(
        "chainlit_proxy_open_requests"
    )


def test_websockets_stay_with_the_old_process(fleet: Fleet, make_proxy: MakeProxy, tmp_path: Path) -> None:
    """With `hand_over` nobody is cut off: what is open stays, the rest goes through the new process."""
    old = make_proxy(reuse_port=True, timeouts={"hand_over": 600})
    new = ProxyProcess(old.config | {"admin": {"listen": f"127.0.0.1:{free_port()}"}}, tmp_path, "new")

    async def use(chat: Chat) -> None:
        reply = await chat.ask(files=(await chat.upload("up"),))
        assert (reply.fields["files"], reply.instance) == ("up", chat.home)

    async def scenario() -> None:
        async with Clients(old.url, delay=0.2) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CROWD))
            answers = [asyncio.create_task(chat.ask("stream 40 0.1")) for chat in chats[::10]]
            new.launch()
            await asyncio.to_thread(new.wait_health, dict.fromkeys(fleet.names, "healthy"))
            old.send(signal.SIGTERM)
            await eventually(lambda: nobody_idles(old), 20, lambda: f"connections are closed\n{old.tail()}")
            await asyncio.gather(*answers)
            await each(chats, use)
            assert all(chat.connects == 1 for chat in chats), "a connection was dropped"
            assert_nothing_refused(chats)
            assert all(len(chat.greetings) == 1 for chat in chats), "a session began anew"
            sockets = sum(chat.link.kind.transports is not Transports.POLLING for chat in chats)
            assert old.metric("chainlit_proxy_backend_tunnels") == sockets
            assert new.metric("chainlit_proxy_backend_tunnels") == 0
        assert await asyncio.to_thread(old.wait) == 0, "nobody is left"

    try:
        asyncio.run(scenario())
    finally:
        new.kill9()


def test_websockets_are_closed_with_1012_and_answers_are_finished(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Told to go, the proxy waits for the answer, serves everybody meanwhile, and ends with 0."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients, aiohttp.ClientSession() as http:
            chat = await clients.open(next(kind for kind in KINDS if "websocket" in str(kind)))
            async with http.ws_connect(f"{proxy.url}/ws/socket.io/?EIO=4&transport=websocket") as idle:
                assert (await idle.receive_str()).startswith("0{")
                await idle.send_str('40{"sessionId":"idle-session","clientType":"webapp","userEnv":"{}"}')
                assert (await idle.receive_str()).startswith("40{")
                answer = asyncio.create_task(chat.ask("stream 40 0.1"))
                await eventually(
                    lambda: proxy.metric("chainlit_proxy_backend_turns") == 1, 10, "an answer under way"
                )
                began = Stopwatch()
                proxy.send(signal.SIGTERM)
                async with http.get(f"{proxy.url}/health") as served:
                    assert served.status == 200
                while (message := await idle.receive(timeout=10)).type not in CLOSE_CODES:
                    pass
                assert (message.data, idle.close_code) == (1012, 1012)
                assert answer.done()
                reply = await answer
                assert len(reply.tokens) == 41
                assert await asyncio.to_thread(proxy.wait) == 0
                assert began.seconds < 20

    asyncio.run(scenario())


def test_a_second_signal_ends_it_at_once(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Nobody has to wait for an answer that takes too long."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), 4))
            answers = [asyncio.create_task(chat.ask("stream 300 0.1", within=3)) for chat in chats]
            await eventually(
                lambda: proxy.metric("chainlit_proxy_backend_turns") == len(chats), 10, "answers under way"
            )
            proxy.send(signal.SIGTERM)
            await eventually(lambda: "leaving" in proxy.tail(400), 5, "it leaves")
            assert proxy.running
            proxy.send(signal.SIGTERM)
            began = Stopwatch()
            await asyncio.to_thread(proxy.wait)
            assert began.seconds < 5
            await asyncio.gather(*answers, return_exceptions=True)

    asyncio.run(scenario())
