"""The hooks of a pod, against real proxies: all of them hear that it goes, and that it is back."""

import asyncio
import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.deploy.test_kubernetes import BASE
from tests.support.clients import Clients, each
from tests.support.instances import Fleet
from tests.support.link import KINDS, Driver
from tests.support.processes import free_port
from tests.support.proxy_process import ProxyProcess, config_for

pytestmark = pytest.mark.system

TOKEN = "a-token-for-hooks"
SERVICE = "chainlit-proxy-admin"
HOSTS = ("127.0.0.1", "127.0.0.2")
PAGES = [kind for kind in KINDS if kind.driver is Driver.PYTHON]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as it is in a pod."""
    spec = importlib.util.spec_from_file_location("drain", BASE / "drain.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GONE", 2.0)  # seconds that it waits for the third address
    monkeypatch.setattr(module, "LOG", "/dev/null")
    for name, value in (("ADMIN_TOKEN", TOKEN), ("POD_NAME", "b"), ("DRAIN_SECONDS", "30")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # it is not for what is in the cluster
    return module


@pytest.fixture
def proxies(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ProxyProcess, ...]]:
    """Two proxies whose admin listeners differ in the host, as pods do; a third address has none any more."""
    port = free_port()
    made = []
    for number, host in enumerate(HOSTS):
        config = config_for(
            (fleet[name] for name in fleet.names), log={"access": False}, sessions={"shared": True}
        )
        config["admin"] = {"listen": f"{host}:{port}", "token": TOKEN}
        made.append(ProxyProcess(config, tmp_path, f"proxy{number}"))

    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        if host != SERVICE:
            return real(host, port, *args, **options)
        return [(0, 0, 0, "", (address, port)) for address in (*HOSTS, "127.0.0.3")]

    for proxy in made:
        proxy.start()
    monkeypatch.setenv("PROXY_ADMIN", f"{SERVICE}:{port}")
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve)
        yield tuple(made)
    for proxy in made:
        proxy.kill9()
        print(proxy.tail())


def told(proxy: ProxyProcess, hook: ModuleType) -> Any:
    """What a proxy says of the pod."""
    return hook.ask(proxy.admin)


def test_a_pod_goes_and_is_back(
    fleet: Fleet, proxies: tuple[ProxyProcess, ...], hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the hook returns its sessions have left at all proxies, none was lost; later it is ready again."""
    monkeypatch.setattr("sys.argv", ["drain.py", "drain"])

    async def scenario() -> None:
        async with Clients(proxies[0].url, delay=0.1) as first, Clients(proxies[1].url, delay=0.1) as second:
            chats = await first.open_many(PAGES, on="b") + await second.open_many(PAGES)
            assert await asyncio.to_thread(hook.main) == 0
            for proxy in proxies:
                state = told(proxy, hook)
                assert (state["admin_state"], state["sessions"], state["drain"]["empty"]) == (
                    "drain",
                    0,
                    True,
                )
            await each(chats, lambda chat: chat.recover())
            assert "b" not in {chat.home for chat in chats}

    asyncio.run(scenario())
    monkeypatch.setattr("sys.argv", ["drain.py", "ready"])
    assert hook.main() == 0
    assert {told(proxy, hook)["admin_state"] for proxy in proxies} == {"ready"}
