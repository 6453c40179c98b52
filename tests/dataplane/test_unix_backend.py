"""Backends on unix sockets: traffic, probes, and what they are called."""

import asyncio
import contextlib
from pathlib import Path
from time import monotonic

import pytest

from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Verdict
from proxy.config import Config, ConfigError, HealthSettings, loads
from proxy.controlplane.probes import Prober
from proxy.dataplane.fetch import ask
from proxy.parts import Parts
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT, Message, Peer, get, ok
from tests.dataplane.scripted import Backend
from tests.dataplane.world import World, run
from tests.support.waiting import eventually


async def listen(backend: Backend, path: Path) -> None:
    """Let a scripted backend accept on a unix socket instead."""
    backend.refuse()
    backend._server = await asyncio.start_unix_server(backend._accepted, str(path))


def test_requests_keep_their_host(tmp_path: Path) -> None:
    """A request goes through the socket with the Host that the client named."""

    async def test(world: World) -> None:
        path = tmp_path / "a.sock"
        await listen(world.backend, path)
        known = world.known("a")
        known.host, known.port, known.path = "", 0, str(path)

        async def answer(peer: Peer, message: Message) -> None:
            peer.say(ok(message.get(b"host") or b""))

        world.backend.serve(answer)
        for _ in range(2):
            assert (await world.ask(get())).body == b"chat.test"
        world.backend.refuse()

    run(test)


def test_socket_without_a_backend_is_down(tmp_path: Path) -> None:
    """A socket that is not there is a refused connection."""

    async def test(world: World) -> None:
        world.known("a").path = str(tmp_path / "nobody.sock")
        assert (await world.ask(get())).status == 503
        assert world.known("a").health.verdict is Verdict.DOWN

    run(test, affinity={"hold": 0})


@pytest.mark.parametrize("kind", ["http", "engineio", "tcp"])
def test_probes(tmp_path: Path, kind: str) -> None:
    """Every kind of probe goes through the socket, and sees when nobody listens any more."""
    path = tmp_path / "a.sock"

    async def answer(peer: Peer, message: Message) -> None:
        peer.say(ok(b'0{"sid":"abc"}' if message.start.startswith(b"GET") else b"ok"))

    async def main() -> None:
        fleet = Fleet(HealthRules())
        backend = Backend("a")
        backend.serve(answer)
        await listen(backend, path)
        known = fleet.add("a", "", 0, path=str(path), now=monotonic())
        settings = HealthSettings.model_validate({"type": kind, "interval": 0.1})
        task = asyncio.create_task(Prober(fleet, Config(health=settings), ask).run())
        try:
            await eventually(lambda: known.health.verdict is Verdict.HEALTHY, WAIT, "not healthy")
            assert backend._server is not None
            backend._server.close()
            path.unlink()
            await eventually(lambda: known.health.verdict is Verdict.DOWN, WAIT, "not down")
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await backend.end()

    run_loop(main())


def test_name_and_address() -> None:
    """Without a name it is called as its file; the url is shown as it was given."""
    urls = [{"url": "http+unix:///run/My/chat a.sock"}, {"url": "HTTP+unix:///run/b"}]
    first, second = Parts(Config.model_validate({"backends": urls})).fleet
    assert (first.name, first.path) == ("chat_a", "/run/My/chat a.sock")
    assert (first.host, first.port) == ("", 0)
    assert (second.name, second.url) == ("b", "http+unix:///run/b")


@pytest.mark.parametrize("rest", ["run/a.sock", "", "/run/", "/a%20b", "/a?b", "/" + "a" * 200])
def test_mistakes(rest: str) -> None:
    """What is no absolute path of a socket is refused with the form that is allowed."""
    with pytest.raises(ConfigError) as caught:
        loads(f"backends:\n- url: 'http+unix://{rest}'")
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (2, "backends[0].url")
    assert problem.message.startswith(("must be http+unix:// and the absolute path", "must have a shorter"))
