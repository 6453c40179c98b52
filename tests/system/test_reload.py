"""The configuration of a running proxy is changed, and nobody notices."""

import asyncio
import random
import signal
from itertools import cycle, islice

import pytest
import yaml

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.proxy_process import MakeProxy, ProxyProcess, config_for
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

RELOADS = 100
CROWD = 24
PAUSE = 0.2  # seconds between two messages of one client


async def talk(chat: Chat, over: asyncio.Event) -> None:
    """Say something again and again."""
    while not over.is_set():
        await chat.ask(within=15)
        await asyncio.sleep(PAUSE)


async def reload(proxy: ProxyProcess, text: str, *, good: bool) -> None:
    """Write a file, send SIGHUP, and wait until it was read."""
    result = "applied" if good else "refused"
    before = proxy.metric("chainlit_proxy_reloads_total", result=result)
    proxy.file.write_text(text)
    proxy.send(signal.SIGHUP)
    await eventually(
        lambda: proxy.metric("chainlit_proxy_reloads_total", result=result) > before, 10, f"{result} reload"
    )


def test_a_hundred_reloads_under_load(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Good and bad files in turn: no websocket is dropped, no request fails, no process is left."""

    async def scenario() -> None:
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(islice(cycle(KINDS), CROWD))
            over = asyncio.Event()
            talking = [asyncio.create_task(talk(chat, over)) for chat in chats]
            pid = proxy.pid
            for number in range(RELOADS):
                config = dict(proxy.config)
                config["balance"] = {"bound": 1.1 + random.random()}
                config["timeouts"] = {"response": 100 + number, "idle": 60 + number}
                config["limits"] = {"connections": 5000 + number}
                config["log"] = {"format": random.choice(["console", "json"])}
                good = number % 4 != 3
                if not good:
                    config[random.choice(["helth", "listn"])] = 1
                await reload(proxy, yaml.safe_dump(config), good=good)
                assert proxy.metric("chainlit_proxy_config_current") == good
            over.set()
            await asyncio.gather(*talking)
            assert proxy.pid == pid
            assert proxy.running
            assert all(chat.connects == 1 for chat in chats), "a connection was dropped"
            assert_nothing_refused(chats)
            assert "unknown key, did you mean 'health'" in proxy.tail(10_000)

    asyncio.run(scenario())


def test_backends_come_and_go_by_reload(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """One that is added gets sessions; one that is gone is drained, and the others see nothing."""
    proxy = make_proxy("ab")
    both = list(proxy.config["backends"])

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS)
            proxy.config["backends"] = config_for(fleet[name] for name in "abc")["backends"]
            await reload(proxy, yaml.safe_dump(proxy.config), good=True)
            await eventually(lambda: proxy.health().get("c") == "healthy", 20, "c healthy")
            newcomers = await clients.open_until_on("c")
            assert all(chat.connects == 1 for chat in chats)
            everybody = chats + newcomers
            stayers = [chat for chat in everybody if chat.home != "c"]
            leavers = [chat for chat in everybody if chat.home == "c"]
            proxy.config["backends"] = both
            proxy.config["timeouts"] = {"drain": 3}
            await reload(proxy, yaml.safe_dump(proxy.config), good=True)
            assert proxy.backends()["c"]["leaving"]
            await eventually(lambda: "c" not in proxy.backends(), 20, "c has left")
            await each(leavers, lambda chat: chat.recover(), at_once=len(leavers))
            await each(everybody, lambda chat: chat.check(fleet.journal))
            assert all(chat.connects == 1 for chat in stayers), "a session that stays was disturbed"

    asyncio.run(scenario())


def test_a_drain_survives_a_reload(fleet: Fleet, proxy: ProxyProcess) -> None:
    """What the operator wishes of a backend is not in the file, and so it is not changed by one."""

    async def scenario() -> None:
        proxy.post("/api/backends/a/drain", {"timeout": 100})
        proxy.config["balance"] = {"bound": 1.5}
        await reload(proxy, yaml.safe_dump(proxy.config), good=True)
        backend = proxy.backends()["a"]
        assert backend["admin_state"] == "drain"
        assert 0 < backend["drain"]["seconds_left"] <= 100
        async with Clients(proxy.url) as clients:
            chats = await clients.open_many(KINDS)
            assert "a" not in {chat.home for chat in chats}

    asyncio.run(scenario())
