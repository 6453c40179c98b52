"""The hook of a pod that goes, while its proxies change: it does not end before its sessions have left."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import hook as module
from proxy.cli import main
from proxy.dataplane.evictions import _ALL_BACK
from tests.support.clients import Clients, each
from tests.support.finding import replace
from tests.support.instances import Fleet
from tests.support.link import KINDS, Driver
from tests.support.proxy_process import MakeProxy, ProxyProcess
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


def test_a_proxy_that_has_just_begun_does_not_say_empty(make_proxy: MakeProxy) -> None:
    """It may be the next one after a restart, whose clients are on their way back to what they were told."""
    proxy = make_proxy("ab")
    proxy.kill9()
    began = time.monotonic()
    proxy.start()
    assert asyncio.run(drain(proxy)) == (0, "")
    assert time.monotonic() - began >= _ALL_BACK
