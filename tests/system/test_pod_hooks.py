"""The hooks of a pod, against real proxies: all of them hear that it goes, and that it is back."""

import asyncio
import json
import signal
import socket
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from proxy.cli import hook as module
from proxy.cli import main
from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import KINDS, Driver
from tests.support.processes import free_port
from tests.support.proxy_process import ProxyProcess, config_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

TOKEN = "a-token-of-operators"
HOOK_TOKEN = "a-token-for-hooks"
SERVICE = "chainlit-proxy-admin"
HOSTS = ("127.0.0.1", "127.0.0.2")
PAGES = [kind for kind in KINDS if kind.driver is Driver.PYTHON]


class Hook:
    """The command as a pod calls it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.token = folder / "hook-token"
        self.token.write_text(HOOK_TOKEN + "\n")

    def run(self, wish: str) -> int:
        """Its status."""
        at = ["--proxies", f"{SERVICE}:{self.port}", "--token-file", str(self.token)]
        done = CliRunner().invoke(main, ["hook", wish, *at, "--name", "b", "--timeout", "30"])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hook:
    """That of a pod."""
    monkeypatch.setattr(module, "GONE", 2.0)  # seconds that it waits for the third address
    monkeypatch.setattr(module, "LOG", "/dev/null")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # it is not for what is in the cluster
    return Hook(tmp_path)


@pytest.fixture
def proxies(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: Hook
) -> Iterator[tuple[ProxyProcess, ...]]:
    """Two proxies whose admin listeners differ in the host, as pods do; a third address has none any more."""
    made = []
    for number, host in enumerate(HOSTS):
        config = config_for(
            (fleet[name] for name in fleet.names), log={"access": False}, sessions={"shared": True}
        )
        config["admin"] = {
            "listen": f"{host}:{hook.port}",
            "token": ["older", TOKEN],
            "hook_token": HOOK_TOKEN,
        }
        made.append(ProxyProcess(config, tmp_path, f"proxy{number}"))

    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host != SERVICE:
            return real(host, port, *args, **options)
        return [(0, 0, 0, "", (address, port)) for address in (*HOSTS, "127.0.0.3")]

    for proxy in made:
        proxy.start()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve)
        yield tuple(made)
    for proxy in made:
        proxy.kill9()
        print(proxy.tail())


def told(proxy: ProxyProcess) -> Any:
    """What a proxy says of the pod."""
    request = urllib.request.Request(
        f"{proxy.admin}/api/backends/b", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer)


def has_let_go(proxy: ProxyProcess) -> bool:
    """Whether the pod has left its fleet."""
    return "backend b left the fleet" in proxy.tail()


def test_a_pod_that_nobody_finds_any_more(proxies: tuple[ProxyProcess, ...], hook: Hook) -> None:
    """Without sessions it has left all proxies before its hook comes, which has nothing to complain of."""
    for proxy in proxies:
        proxy.config["backends"] = [one for one in proxy.config["backends"] if one["name"] != "b"]
        proxy.file.write_text(yaml.safe_dump(proxy.config))
        proxy.send(signal.SIGHUP)
        wait_until(partial(has_let_go, proxy), 20, proxy.tail)
    assert hook.run("drain") == 0


def test_a_pod_goes_and_is_back(fleet: Fleet, proxies: tuple[ProxyProcess, ...], hook: Hook) -> None:
    """When the hook returns its sessions have left at all proxies and none was lost; then it is back.

    The second time nobody says that it is: it was away and answers again, and its drain ends by itself.
    """

    async def scenario() -> None:
        async with Clients(proxies[0].url, delay=0.1) as first, Clients(proxies[1].url, delay=0.1) as second:
            chats = await first.open_many(PAGES, on="b") + await second.open_many(PAGES)
            assert await asyncio.to_thread(hook.run, "drain") == 0
            for proxy in proxies:
                state = await asyncio.to_thread(told, proxy)
                assert (state["admin_state"], state["sessions"], state["drain"]["empty"]) == (
                    "drain",
                    0,
                    True,
                )
            await each(chats, lambda chat: chat.recover())
            assert "b" not in {chat.home for chat in chats}

    asyncio.run(scenario())
    assert hook.run("ready") == 0
    assert {told(proxy)["admin_state"] for proxy in proxies} == {"ready"}
    assert hook.run("drain") == 0
    fleet["b"].kill9()
    assert wait_until(lambda: all(told(proxy)["health"] == "down" for proxy in proxies), 20, "it is down")
    assert {told(proxy)["admin_state"] for proxy in proxies} == {"drain"}
    fleet.heal()
    assert wait_until(
        lambda: all(told(proxy)["admin_state"] == "ready" for proxy in proxies), 20, "it is back"
    )
