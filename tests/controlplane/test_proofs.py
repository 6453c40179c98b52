"""What a probe believes: with `health.secret` only an answer to its challenge, made with the secret."""

import re

import pytest

from proxy.sessions.proof import proof
from tests.controlplane.probing import DOWN, HEALTHY, Probing, answers, run
from tests.dataplane.peers import WAIT, Message, Peer, ok
from tests.dataplane.scripted import Script
from tests.support.waiting import eventually


def challenge(message: Message) -> bytes:
    """What a probe brings."""
    found = message.get(b"x-chainlit-proxy-challenge")
    assert found
    assert re.fullmatch(rb"[0-9a-f]{32}", found)
    return found


def proving(*secrets: str, status: bytes = b"200 OK", seen: list[bytes] | None = None) -> Script:
    """An instance with these secrets."""

    async def script(peer: Peer, message: Message) -> None:
        given = challenge(message)
        if seen is not None:
            seen.append(given)
        peer.say(
            b"HTTP/1.1 %b\r\nX-Chainlit-Proxy-Proof: %b\r\nContent-Length: 0\r\n\r\n"
            % (status, proof(secrets, given))
        )

    return script


@pytest.mark.parametrize(
    ("known", "given"), [("one", ["one"]), (["new", "old"], ["old"]), ("new", ["newest", "new"])]
)
def test_who_knows_the_secret_is_healthy(known: str | list[str], given: list[str]) -> None:
    """One secret in common is enough, so that each can be replaced; no challenge comes twice."""
    seen: list[bytes] = []

    async def test(probing: Probing) -> None:
        await probing.becomes(HEALTHY)

    run(test, proving(*given, seen=seen), secret=known)
    assert len(set(seen)) == len(seen)


async def repeat(peer: Peer, message: Message) -> None:
    """Answer with the challenge, and what was a proof of another one."""
    old = proof(["one"], b"0" * 32)
    both = b"%b,%b" % (challenge(message), old)
    peer.say(b"HTTP/1.1 200 OK\r\nX-Chainlit-Proxy-Proof: %b\r\nContent-Length: 0\r\n\r\n" % both)


@pytest.mark.parametrize("script", [answers(ok()), proving("other"), proving(), repeat])
def test_a_stranger_is_down(script: Script) -> None:
    """Whatever it answers, it gets nobody and nothing that is pinned, and the reason says why."""

    async def test(probing: Probing) -> None:
        health = probing.known.health
        await eventually(lambda: health.failures > 1, WAIT, lambda: repr(health))
        assert (health.verdict, probing.known.holds_pins) == (DOWN, False)
        assert "does not know health.secret" in health.reason

    run(test, script, secret="one")


def test_an_instance_that_is_replaced_by_a_stranger_is_down_at_once() -> None:
    """The name of a pod that is gone may lead elsewhere: the first probe there ends it."""
    ours = True

    async def script(peer: Peer, message: Message) -> None:
        await (proving("one") if ours else answers(ok()))(peer, message)

    async def test(probing: Probing) -> None:
        nonlocal ours
        await probing.becomes(HEALTHY)
        ours = False
        await probing.becomes(DOWN)
        assert probing.known.health.failures == 1
        assert "does not know health.secret" in probing.known.health.reason
        assert not probing.known.holds_pins

    run(test, script, secret="one")


@pytest.mark.parametrize("own", [True, False])
def test_own_replicas_need_not_prove_anything(own: bool) -> None:
    """`run` knows the processes that it has started."""

    async def test(probing: Probing) -> None:
        probing.prober.own_replicas = own
        health = probing.known.health
        await eventually(lambda: health.met, WAIT, lambda: repr(health))
        assert health.verdict is (HEALTHY if own else DOWN)

    run(test, answers(ok()), secret="one")
