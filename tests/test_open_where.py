"""Where `run` says that the app is, and when."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.app import App
from proxy.config import Config, loads
from proxy.controlplane.rollout import RolloutProgress, RolloutState
from proxy.local_replicas import LocalReplicas
from proxy.parts import Parts
from proxy.replicas import ReplicaState

PLACES = "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\n"


@pytest.mark.parametrize(("roots", "path"), [("[]", ""), ("/chat", "/chat/"), ("/", "/")])
def test_the_address_has_the_root_path(roots: str, path: str) -> None:
    """Without it the browser is told that there is nothing."""

    async def scenario() -> None:
        app = App(loads(f"{PLACES}affinity: {{roots: {roots}}}"))
        app.bind()
        (sock,) = app.ports.bound.clients.values()
        assert app._public_address() == f"http://127.0.0.1:{sock.getsockname()[1]}{path}"
        app.ports.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("count", "state", "told"),
    [
        (1, RolloutState.IDLE, ["the replica is ready: open http://here"]),
        (2, RolloutState.DONE, ["all 2 replicas are ready: open http://here"]),
        (3, RolloutState.RUNNING, []),
    ],
)
def test_a_rollout_does_not_tell_it_again(
    count: int, state: RolloutState, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """There is one replica more than it shall be meanwhile, and each new one would be the last of them."""

    async def scenario() -> None:
        local: Any = LocalReplicas(Parts(Config()), lambda: "http://here")
        local.supervisor = SimpleNamespace(replicas=[SimpleNamespace(state=ReplicaState.READY)] * count)
        local._rollout = SimpleNamespace(progress=RolloutProgress(state))
        local._tell_if_all_are_ready()

    with caplog.at_level(logging.INFO, "proxy"):
        asyncio.run(scenario())
    assert caplog.messages == told
