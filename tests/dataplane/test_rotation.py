"""Secrets of pins in rotation: made with the newest, read with any; a pin that nobody can read is none."""

from typing import Any

import pytest

from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules
from proxy.affinity.pins import pin_token
from tests.dataplane.peers import Message, Peer, get, ok
from tests.dataplane.world import World, run

ROTATION: dict[str, Any] = {"affinity": {"secret": ["new", "old"]}}
HANDSHAKE = b"/ws/socket.io/?EIO=4&transport=polling"
POLL = HANDSHAKE + b"&sid="


PAGE = b"Content-Type: text/html"


def serve(world: World) -> None:
    """Every backend answers with its name, and opens a session when asked to."""
    for backend in world.backends:
        name = backend.name.encode()

        async def answer(peer: Peer, message: Message, name: bytes = name) -> None:
            opens = b"sid=" not in message.target and b"/ws/" in message.target
            peer.say(ok(b'0{"sid":"of-%b"}' % name if opens else b"6", b"X-Name: " + name, PAGE))

        backend.serve(answer)


def pinned(message: Message) -> bytes | None:
    """The pin that a response sets."""
    cookies = [line for line in message.all(b"set-cookie") if line.startswith(b"chainlit_pin=")]
    return cookies[0].split(b";")[0].partition(b"=")[2] if cookies else None


def cookie(token: bytes) -> bytes:
    """The field that sends a pin back."""
    return b"Cookie: chainlit_pin=" + token


def test_the_fleet_reads_pins_of_every_secret() -> None:
    """A backend's pins of all secrets name it while it is there, and none of them afterwards."""
    fleet = Fleet(HealthRules(), b"new", b"old")
    backend = fleet.add("a", "127.0.0.1", 1, now=0.0)
    assert backend.token == pin_token("a", b"new")
    assert fleet.by_token(pin_token("a", b"old")) is backend
    assert fleet.by_token(pin_token("a", b"older")) is None
    assert fleet.by_token(pin_token("a")) is None
    fleet.remove(backend)
    assert [fleet.by_token(pin_token("a", secret)) for secret in (b"new", b"old")] == [None, None]


def test_pins_are_made_with_the_newest_secret() -> None:
    """Cookie and sid carry the pin of the first secret of the list."""

    async def test(world: World) -> None:
        serve(world)
        answer = await world.ask(get(HANDSHAKE))
        token = pin_token((answer.get(b"x-name") or b"").decode(), b"new")
        assert pinned(answer) == token
        assert answer.body.startswith(b'0{"sid":"' + token + b".")

    run(test, "ab", **ROTATION)


@pytest.mark.parametrize("secret", [b"new", b"old"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_pins_of_every_secret_are_followed(secret: bytes, name: str) -> None:
    """A cookie or sid that was made before the rotation leads to the same backend as one made after it."""

    async def test(world: World) -> None:
        serve(world)
        token = pin_token(name, secret)
        assert (await world.ask(get(b"/", cookie(token)))).get(b"x-name") == name.encode()
        poll = await world.ask(get(POLL + token + b".of-" + name.encode()))
        assert (poll.status, poll.get(b"x-name")) == (200, name.encode())

    run(test, "ab", **ROTATION)


def test_an_older_cookie_is_replaced() -> None:
    """A browser that comes by with a pin of the old secret gets that of the new one, for the same backend."""

    async def test(world: World) -> None:
        serve(world)
        assert pinned(await world.ask(get(b"/", cookie(pin_token("b", b"old"))))) == pin_token("b", b"new")
        assert pinned(await world.ask(get(b"/", cookie(pin_token("b", b"new"))))) is None

    run(test, "ab", **ROTATION)


@pytest.mark.parametrize(
    "token",
    [
        pin_token("a"),
        pin_token("a", b"retired"),
        pin_token("gone", b"new"),
        b"",
        b"x" * 12,
        b"not/a/token",
        b"\xff",
    ],
)
def test_a_forged_or_stale_pin_is_a_missing_pin(token: bytes) -> None:
    """It leads nowhere and breaks nothing: a request is placed and pinned, a poll is told to begin anew."""

    async def test(world: World) -> None:
        serve(world)
        for path in (b"/", HANDSHAKE):
            missing = await world.ask(get(path))
            forged = await world.ask(get(path, cookie(token)))
            assert forged.status == missing.status == 200
            assert pinned(forged) in {world.pin("a"), world.pin("b")}
        if token.strip(b"\xff"):  # no target holds such a byte, and a sid may be without a pin
            poll = await world.ask(get(POLL + token + b".of-a"))
            assert (poll.status, b"Session ID unknown" in poll.body) == (400, True)

    run(test, "ab", **ROTATION)
