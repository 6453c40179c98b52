"""The configuration of a running proxy is changed, and nobody notices."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import urllib.error
from itertools import cycle, islice

import pytest
import yaml

from tests.support.chat import Chat
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import Fleet, http_status
from tests.support.link import KINDS, Transports
from tests.support.processes import free_port
from tests.support.proxy_process import MakeProxy, ProxyProcess, config_for
from tests.support.size import sized
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

RELOADS = 100
CROWD = sized(100, in_full=300)
PAUSE = 6.0  # seconds between two messages of one client: 50 a second, of all together


async def talk(chat: Chat, over: asyncio.Event) -> None:
    """Say something again and again."""
    while not over.is_set():
        await chat.ask(within=15)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), PAUSE * random.uniform(0.5, 1.5))


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


def test_listeners_move_by_reload(fleet: Fleet, proxy: ProxyProcess) -> None:
    """The new addresses answer, the old ones are refused, and who came by the old one stays connected."""

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS)
            old, old_admin = proxy.url, proxy.admin
            moved = proxy.config | {
                "listen": [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"],
                "admin": {"listen": f"127.0.0.1:{free_port()}"},
            }
            proxy.file.write_text(yaml.safe_dump(moved))
            proxy.send(signal.SIGHUP)
            proxy.admin = f"http://{moved['admin']['listen']}"
            await eventually(
                lambda: http_status(f"{proxy.admin}/readyz") == 200, 10, "the admin listener is there"
            )
            for address in moved["listen"]:
                assert http_status(f"http://{address}/health") == 200
            await eventually(lambda: http_status(f"{old}/health") == 0, 10, "the old address is closed")
            await eventually(lambda: http_status(f"{old_admin}/healthz") == 0, 10, "so is the old admin's")
            sockets = [chat for chat in chats if chat.link.kind.transports is Transports.WEBSOCKET]
            assert sockets
            await each(sockets, lambda chat: chat.ask())
            assert all(chat.connects == 1 for chat in sockets)

    asyncio.run(scenario())


def test_a_port_that_is_taken_refuses_the_whole_file(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Nothing of a file is applied whose listeners cannot all be opened; the reason is told."""

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            spare = free_port()
            bad = proxy.config | {
                "listen": [proxy.config["listen"], f"127.0.0.1:{spare}", f"127.0.0.1:{port}"],
                "backends": proxy.config["backends"][:1],
            }
            await reload(proxy, yaml.safe_dump(bad), good=False)
            assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in proxy.tail(400)
            assert len(proxy.backends()) == len(fleet.names)
            assert http_status(f"http://127.0.0.1:{spare}/health") == 0
            assert http_status(f"{proxy.url}/health") == 200

    asyncio.run(scenario())


def test_a_name_that_cannot_be_looked_up_is_refused(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Neither SIGHUP nor the API end the process by it: each is refused, and says where and why."""

    async def scenario() -> None:
        for bad in ({"listen": "a..b:8000"}, {"listen": f"{'a' * 64}.b:8000"}):
            await reload(proxy, yaml.safe_dump(proxy.config | bad), good=False)
            with pytest.raises(urllib.error.HTTPError, match="409") as refused:
                proxy.post("/api/reload")
            answer = json.load(refused.value)
            assert not answer["applied"]
            assert "a host name is labels of 1 to 63 letters" in answer["problems"][0]
            assert "listen" in answer["problems"][0]
            assert proxy.running
            assert proxy.metric("chainlit_proxy_config_current") == 0
            assert http_status(f"{proxy.url}/health") == 200
        await reload(proxy, yaml.safe_dump(proxy.config), good=True)

    asyncio.run(scenario())


def test_a_pipe_is_not_read_again(fleet: Fleet, proxy: ProxyProcess) -> None:
    """Nobody writes to it any more: the reload is refused, and the process does not wait for it."""

    async def scenario() -> None:
        proxy.file.unlink()
        os.mkfifo(proxy.file)
        with pytest.raises(urllib.error.HTTPError, match="409") as refused:
            proxy.post("/api/reload")
        assert "cannot be read again" in json.load(refused.value)["problems"][0]
        assert len(proxy.backends()) == len(fleet.names)
        assert http_status(f"{proxy.url}/health") == 200

    asyncio.run(scenario())
