"""The proxy's memory is a cache: after a restart every session is found again where it lives."""

import asyncio
import signal
import socket
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support.chat import Chat
from tests.support.clients import Clients, each
from tests.support.instances import Fleet, http_status
from tests.support.link import KINDS, Driver, Kind, Transports
from tests.support.proxy_process import MakeProxy, ProxyProcess, config_for
from tests.support.size import sized
from tests.support.waiting import eventually
from tests.system.test_activation import Manager, manager

__all__ = ["manager"]  # a fixture

pytestmark = pytest.mark.system

CONVERSATIONS = sized(100, in_full=300)
TRIED = 5  # one in so many is used in every way there is: that takes a second of two cores
MESSAGES = 2
KIND = Kind(Driver.PYTHON, Transports.BOTH)  # one whose websocket is lost with the process


@pytest.mark.timeout(300)
def test_every_conversation_goes_on_after_a_restart(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """Stopped or killed and started again, the proxy brings every client back to their own sessions."""
    proxy = make_proxy()

    async def speak(chat: Chat) -> None:
        for _ in range(MESSAGES):
            await chat.ask()

    async def come_back(chat: Chat) -> None:
        await chat.resume(within=60)
        chat.check_unmoved(fleet.journal)

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CONVERSATIONS))
            await each(chats, speak)
            for number in (signal.SIGTERM, signal.SIGKILL):
                await asyncio.to_thread(proxy.stop, number)
                proxy.launch()
                await each(chats, come_back, at_once=CONVERSATIONS)
                await each(chats[::TRIED], lambda chat: chat.check(fleet.journal))

    asyncio.run(scenario())


@pytest.mark.parametrize("held", [True, False], ids=["its socket held", "its port free"])
def test_one_long_answer_keeps_nobody_offline(
    held: bool, fleet: Fleet, make_proxy: MakeProxy, manager: Manager, tmp_path: Path
) -> None:
    """Everybody is served until it is whole, newcomers too; then the next process takes over in a moment."""
    sock = manager.listen(socket.AF_INET, ("127.0.0.1", 0))
    if held:
        config = config_for(fleet[name] for name in fleet.names)
        config["listen"] = "{}:{}".format(*sock.getsockname())
        proxy = manager.hand_over(ProxyProcess(config, tmp_path, "held"))
        proxy.start()
    else:
        proxy = make_proxy()

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            busy, *others = await clients.open_many([KIND] * 3)
            answer = asyncio.create_task(busy.ask("stream 40 0.2"))
            await eventually(lambda: busy.heard > 2, 20, "the answer has begun")
            proxy.send(signal.SIGTERM)
            await eventually(
                lambda: http_status(f"{proxy.admin}/readyz") == 503, 20, "it says that it leaves"
            )
            others.append(await clients.open(KIND))
            for chat in others:
                await chat.ask()
            assert not answer.done(), "all of that was beside the answer"
            assert len((await answer).tokens) > 40
            assert not any(event.name == "disconnect" for chat in clients.chats for event in chat.events)
            await asyncio.to_thread(proxy.wait)
            proxy.launch()
            for chat in clients.chats:
                await chat.back(1)
                await chat.ask()

    try:
        asyncio.run(scenario())
    finally:
        proxy.kill9()
        print(proxy.tail())
