"""Backends come and go by discovery, and nobody notices."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.dns_server import DnsServer
from tests.support.finding import replace
from tests.support.instances import Fleet
from tests.support.link import KINDS
from tests.support.proxy_process import MakeProxy
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CURRENT = "chainlit_proxy_discovery_current"
FAILURES = "chainlit_proxy_discovery_failures_total"


def listed(fleet: Fleet, names: str) -> str:
    """A list of some instances."""
    return json.dumps([{"name": name, "url": fleet[name].url} for name in names])


def test_a_list_that_changes_moves_nobody_who_can_stay(
    fleet: Fleet, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    """One that is found takes sessions; one that is found no more is drained; a bad list changes nothing."""
    file = tmp_path / "backends.json"
    file.write_text(listed(fleet, "b"))
    proxy = make_proxy("a", discovery={"file": str(file)}, timeouts={"drain": 3})

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS)
            replace(file, listed(fleet, "bc"))
            await eventually(lambda: proxy.health().get("c") == "healthy", 20, "c healthy")
            newcomers = await clients.open_until_on("c")
            file.write_text("[{")
            await eventually(
                lambda: proxy.metric("chainlit_proxy_discovery_failures_total", source="file") > 0,
                20,
                "failure",
            )
            await each(chats + newcomers, lambda chat: chat.ask())
            assert_nothing_refused(chats + newcomers)
            assert all(chat.connects == 1 for chat in chats + newcomers)
            leavers = [chat for chat in chats + newcomers if chat.home == "c"]
            stayers = [chat for chat in chats if chat.home != "c"]
            replace(file, listed(fleet, "b"))
            await eventually(lambda: "c" not in proxy.backends(), 30, "c has left")
            await each(leavers, lambda chat: chat.recover(), at_once=len(leavers))
            await each(chats + newcomers, lambda chat: chat.check(fleet.journal))
            assert all(chat.connects == 1 for chat in stayers), "a session that stays was disturbed"

    asyncio.run(scenario())


def test_an_instance_that_leaves_dns_is_drained(fleet: Fleet, make_proxy: MakeProxy, tmp_path: Path) -> None:
    """A name that is added takes sessions; one that is gone keeps its own until the drain is over."""
    server = DnsServer(tmp_path)

    def serve(names: str) -> None:
        ports = {name: fleet[name].url.rpartition(":")[2] for name in names}
        server.serve(
            *(f"host-record={name}.test,127.0.0.1" for name in names),
            *(f"srv-host=chat.test,{name}.test,{port}" for name, port in ports.items()),
        )

    def found(name: str) -> str:
        return f"{name}.test:{fleet[name].url.rpartition(':')[2]}"

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.2) as clients:
            chats = await clients.open_many(KINDS, on="b")
            serve("c")
            b, c = found("b"), found("c")
            await eventually(lambda: proxy.health().get(c) == "healthy", 20, "c healthy")
            await eventually(lambda: proxy.backends()[b]["leaving"], 20, "b leaves")
            leavers = [chat for chat in chats if chat.home == "b"]
            await each(leavers, lambda chat: chat.ask())
            assert all(chat.connects == 1 for chat in chats)
            await eventually(lambda: b not in proxy.backends(), 30, "b has left")
            await each(leavers, lambda chat: chat.recover(), at_once=len(leavers))
            await each(chats, lambda chat: chat.check(fleet.journal))
            assert proxy.metric(CURRENT, source="dns") == 1

    try:
        serve("b")
        dns = {"name": "chat.test", "records": "srv", "servers": f"127.0.0.1:{server.port}", "longest": 1}
        proxy = make_proxy("a", discovery={"dns": dns}, timeouts={"drain": 8})
        proxy.wait_health({found("b"): "healthy"})
        asyncio.run(scenario())
    finally:
        server.kill9()
