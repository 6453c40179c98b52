"""What the hook of a pod does where DNS is silent or slow: the time of the hook stays what it was given."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.cli import hook as module
from tests.deploy.test_pod_hook import EMPTY, SERVICE, Hook, MakeProxy, hook, make_proxy

__all__ = ["hook", "make_proxy"]  # fixtures


class Dns:
    """It answers, once for all, when it is told to; nobody here has the patience for that."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = 0
        self._real = socket.getaddrinfo

    def resolve(self, host: Any, *args: Any, **options: Any) -> list[Any]:
        """As getaddrinfo."""
        if host != SERVICE:
            return self._real(host, *args, **options)
        self.asked += 1
        assert self.answers.wait(60)
        return self._real("127.0.0.1", *args, **options)


@pytest.fixture
def dns(make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    """That of a cluster, with one proxy that says that the pod is empty."""
    made = Dns()
    make_proxy(lambda _: (200, EMPTY))
    monkeypatch.setattr(module, "NAMED", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", made.resolve)
    yield made
    made.answers.set()


@pytest.mark.parametrize(("wish", "status"), [("drain", 1), ("ready", 0), ("taken", 0)])
def test_dns_that_is_silent_takes_no_time_of_the_app(hook: Hook, dns: Dns, wish: str, status: int) -> None:
    """It is waited for as for a proxy: what is over the time of the hook lacks to Chainlit's own end."""
    assert hook.run(wish, 0.0) == status
    assert not dns.answers.is_set()
    assert ("DNS has not answered" in hook.said()) is (wish != "taken")


def test_dns_that_is_slow_is_no_failure(hook: Hook, dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes late counts, and the question is not asked anew each time."""
    told: list[str] = []

    def say(_hook: object, text: str) -> None:
        told.append(text)
        dns.answers.set()

    monkeypatch.setattr(module._Hook, "_say", say)
    assert hook.run("drain", 30.0) == 0
    assert (told, dns.asked) == ([f"{SERVICE}: DNS has not answered within 0.2 s"], 1)
