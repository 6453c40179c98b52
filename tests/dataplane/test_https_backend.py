"""Backends that speak TLS: whom the proxy believes, in traffic and in probes."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from proxy import net, tls
from proxy.affinity.backend import Backend as Known
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Verdict
from proxy.config import Config, ConfigError, HealthSettings, load
from proxy.controlplane.probes import Prober
from proxy.dataplane.fetch import ask
from proxy.errors import ConnectTimeout, HandshakeFailed
from proxy.parts import Parts
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT, Message, Peer, get, ok, post
from tests.dataplane.scripted import Backend, echo
from tests.dataplane.world import World, run
from tests.support.certificates import Authority
from tests.support.waiting import eventually

NAME = "app.test"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs the certificate of the backend."""
    return Authority(tmp_path)


class Secure:
    """A TLS listener in front of a scripted backend."""

    def __init__(self, pair: dict[str, str]) -> None:
        self.names: list[str | None] = []  # what clients asked for by SNI
        self.context = tls.server_context(pair["cert"], pair["key"])
        self.context.sni_callback = self._asked

    def _asked(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self.names.append(name)

    async def listen(self, backend: Backend) -> None:
        """Let the backend accept with TLS instead."""
        assert backend._server is not None
        backend._server.close()
        backend._server = await asyncio.start_server(
            backend._accepted, sock=backend._sock.dup(), ssl=self.context
        )


def serve(pair: dict[str, str], test: Callable[[World], Awaitable[None]], **trust: Any) -> list[str | None]:
    """Run a test with one https backend; what was asked for by SNI."""
    secure = Secure(pair)

    async def whole(world: World) -> None:
        await secure.listen(world.backend)
        known = world.known("a")
        context = tls.client_context(trust.get("ca"), verify=trust.get("verify", True))
        known.tls = tls.Trust(context, trust.get("server_name", NAME))
        assert known.url == f"https://127.0.0.1:{world.backend.port}"
        await test(world)

    run(whole)
    return secure.names


def test_requests_and_websockets(authority: Authority) -> None:
    """Requests, large bodies and websockets reach a backend over TLS; it is asked for by its name."""

    async def test(world: World) -> None:
        ours, theirs = await world.websocket()
        ours.say(b"x" * 100_000)
        assert await theirs.hear() == b"x" * 100_000
        theirs.say(b"y" * 100_000)
        assert await ours.hear() == b"y" * 100_000
        ours.peer.close()
        await theirs.peer.gone()
        theirs.peer.close()
        world.backend.serve(echo)
        large = bytes(range(256)) * 4096
        for _ in range(2):
            assert (await world.ask(post(b"/", large))).body == b"/ " + large
        assert sum(world.plane.site.pool(world.known("a")).connect_seconds.counts) == 2  # the second was kept

    names = serve(authority.issue(NAME), test, ca=str(authority.file))
    assert set(names) == {NAME}


@pytest.mark.parametrize("wrong", ["authority", "name", "plain"])
def test_who_does_not_verify_gets_nothing(authority: Authority, tmp_path: Path, wrong: str) -> None:
    """A certificate of another authority or name, or none at all: no request is sent.

    What is open goes on: a certificate that was not renewed in time says nothing of the process behind it.
    """
    ca = Authority(tmp_path, "other").file if wrong == "authority" else authority.file

    async def test(world: World) -> None:
        if wrong == "plain":
            assert world.backend._server is not None
            world.backend._server.close()
            await world.backend.listen()
        asking = asyncio.create_task(world.ask(get()))
        if wrong == "plain":
            for _ in range(2):
                (await world.backend.accept()).say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        answer = await asking
        assert (answer.status, answer.body) == (502, b"502 no connection to the backend\n")
        assert world.backend.requests == []
        assert world.known("a").health.verdict is Verdict.HEALTHY
        assert world.suspected == ["a"] * 2
        assert world.plane.site.stats.upstream_errors["a", "HandshakeFailed"] == 2

    name = "another.test" if wrong == "name" else NAME
    serve(authority.issue(NAME), test, ca=str(ca), server_name=name)


def test_verification_can_be_left_out(authority: Authority) -> None:
    """With `verify: false` any certificate will do."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        assert (await world.ask(get(b"/x"))).body == b"/x "

    serve(authority.issue("whoever.test"), test, verify=False)


def test_silent_handshake_is_slow_not_dead(authority: Authority) -> None:
    """A backend that accepts and says nothing is a timeout, which does not make it down."""

    async def main() -> None:
        backend = Backend("a")
        await backend.listen()
        trust = tls.Trust(tls.client_context(None, verify=True), NAME)
        with pytest.raises(ConnectTimeout):
            await net.connect(asyncio.Protocol, "127.0.0.1", backend.port, 0.2, trust)
        await backend.end()

    run_loop(main())


@pytest.mark.parametrize("kind", ["http", "engineio", "tcp"])
@pytest.mark.parametrize("trusted", [True, False])
def test_probes(authority: Authority, tmp_path: Path, kind: str, trusted: bool) -> None:
    """Probes verify as traffic does, by the same name."""
    ca = authority.file if trusted else Authority(tmp_path, "other").file
    secure = Secure(authority.issue(NAME))

    async def answer(peer: Peer, message: Message) -> None:
        peer.say(ok(b'0{"sid":"abc"}' if message.start.startswith(b"GET") else b"ok"))

    async def main() -> None:
        fleet = Fleet(HealthRules())
        backend = Backend("a")
        await backend.listen()
        await secure.listen(backend)
        backend.serve(answer)
        trust = tls.Trust(tls.client_context(str(ca), verify=True), NAME)
        known: Known = fleet.add("a", "127.0.0.1", backend.port, now=monotonic(), tls=trust)
        settings = HealthSettings.model_validate({"type": kind, "interval": 0.1})
        prober = Prober(fleet, Config(health=settings), ask)
        task = asyncio.create_task(prober.run())
        try:
            await eventually(prober.met_all.is_set, WAIT, "not probed")

            def judged() -> bool:  # not by a first probe that was late here
                return known.health.verdict is Verdict.HEALTHY or "does not verify" in known.health.reason

            await eventually(judged, WAIT, lambda: repr(known.health))
            assert known.health.verdict is (Verdict.HEALTHY if trusted else Verdict.DEGRADED)
            assert ("does not verify" in known.health.reason) is not trusted
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await backend.end()

    run_loop(main())
    assert set(secure.names) == {NAME}


def test_settings_become_trust(authority: Authority) -> None:
    """The name is that of the settings, else the host of the url; plain backends have none."""
    parts = Parts(
        Config.model_validate(
            {
                "backends": [
                    {"url": "https://a.test:1", "tls": {"ca": str(authority.file)}},
                    {"url": "https://b.test:1", "tls": {"server_name": "c.test", "verify": False}},
                    {"url": "http://d.test:1"},
                    {"url": "https://e.test.:1"},
                    {"url": "https://f.test:1", "tls": {"server_name": "g.test."}},
                ]
            }
        )
    )
    first, second, third, *absolute = parts.fleet
    assert first.tls is not None
    assert second.tls is not None
    assert third.tls is None
    assert (first.tls.server_name, first.tls.context.verify_mode) == ("a.test", ssl.CERT_REQUIRED)
    assert first.tls.context.check_hostname
    assert (second.tls.server_name, second.tls.context.verify_mode) == ("c.test", ssl.CERT_NONE)
    # Certificates and SNI know no final dot (RFC 6066 section 3).
    assert [backend.tls.server_name for backend in absolute if backend.tls] == ["e.test", "g.test"]


@pytest.mark.parametrize(
    ("entry", "key", "message"),
    [
        (
            "url: https://a:1, tls: {ca: /nowhere}",
            "tls.ca",
            "cannot be read: /nowhere: No such file or directory",
        ),
        ("url: https://a:1, tls: {ca: FILE}", "tls.ca", "must hold certificates in PEM form"),
        (
            "url: https://a:1, tls: {server_name: 'a b'}",
            "tls.server_name",
            'must be a host name or an IP address (got "a b")',
        ),
        (
            "url: http://a:1, tls: {verify: false}",
            "tls",
            "must be left out, because the url does not begin with https",
        ),
    ],
)
def test_mistakes(tmp_path: Path, entry: str, key: str, message: str) -> None:
    """What cannot be meant is told at its line."""
    file = tmp_path / "proxy.yaml"
    file.write_text("backends:\n- {" + entry.replace("FILE", str(file)) + "}")
    with pytest.raises(ConfigError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key, problem.message) == (2, f"backends[0].{key}", message)


def test_the_error_says_why(authority: Authority) -> None:
    """The reason of a certificate that does not verify is in the error."""
    secure = Secure(authority.issue(NAME))

    async def main() -> None:
        backend = Backend("a")
        await backend.listen()
        await secure.listen(backend)
        trust = tls.Trust(authority.client(), "another.test")
        with pytest.raises(HandshakeFailed, match="does not verify: Hostname mismatch"):
            await net.connect(asyncio.Protocol, "127.0.0.1", backend.port, WAIT, trust)
        await backend.end()

    run_loop(main())
