"""The hook of a pod that goes, while its proxies change: it does not end before its sessions have left."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import hook as module
from proxy.cli import main
from tests.support.clients import Clients, each
from tests.support.finding import replace
from tests.support.instances import Fleet
from tests.support.link import KINDS, Driver
from tests.support.proxy_process import MakeProxy, ProxyProcess, command
from tests.support.waiting import eventually

pytestmark = pytest.mark.system

PAGES = [kind for kind in KINDS if kind.driver is Driver.PYTHON]


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none whose log the hook could write to."""
    monkeypatch.setattr(module, "LOG", "/dev/null")


async def drain(proxy: ProxyProcess) -> tuple[int, str]:
    """Status and words of the hook of `b`."""
    at = ["--proxies", proxy.admin.removeprefix("http://"), "--name", "b", "--timeout", "60"]
    done = await asyncio.to_thread(CliRunner().invoke, main, ["hook", "drain", *at])
    return done.exit_code, done.output


@pytest.mark.parametrize("used", [True, False], ids=["with sessions", "idle"])
def test_a_pod_that_has_left_the_list_is_empty(
    fleet: Fleet, make_proxy: MakeProxy, tmp_path: Path, used: bool
) -> None:
    """Where pods are discovered, one that begins to end leaves the list, and then the fleet."""
    listed = tmp_path / "listed.json"

    def write(names: str) -> None:
        replace(listed, json.dumps([{"name": name, "url": fleet[name].url} for name in names]))

    write("ab")
    proxy = make_proxy("c", discovery={"file": str(listed)}, sessions={"shared": True})
    proxy.wait_health({"b": "healthy"})

    async def scenario() -> None:
        async with Clients(proxy.url, delay=0.1) as clients:
            chats = await clients.open_many(PAGES, on="b") if used else []
            write("a")
            if not used:
                await eventually(lambda: "b" not in proxy.backends(), 20, "it has left")
            assert await drain(proxy) == (0, "")
            await eventually(lambda: "b" not in proxy.backends(), 20, "it has left")
            await each(chats, lambda chat: chat.recover())

    asyncio.run(scenario())


def test_a_proxy_that_has_just_begun_does_not_say_empty(fleet: Fleet, make_proxy: MakeProxy) -> None:
    """Clients of the one before it are on their way: their sessions have the time that is left of the drain."""
    proxy = make_proxy("ab")

    async def scenario() -> None:
        async with Clients(proxy.url, delay=3.0) as clients:
            (*_, chat) = await clients.open_until_on("b")
            hook = asyncio.create_task(drain(proxy))
            await eventually(lambda: proxy.backends()["b"]["drain"], 20, "the drain")
            before = chat.connects
            proxy.kill9()
            await asyncio.to_thread(proxy.start)
            await eventually(lambda: proxy.backends()["b"]["drain"], 20, "the drain again")
            await chat.back(before)
            assert (chat.home, hook.done()) == ("b", False)
            await command(proxy, "drain", "b", "--timeout", "0")
            status, _ = await hook
            assert status == 0
            await chat.recover()
            assert chat.home == "a"

    asyncio.run(scenario())
