"""Polling transports: the sid that carries its backend's pin, there and back."""

import json

import pytest

from proxy.affinity.backend import AdminState
from proxy.affinity.health import Observation
from tests.dataplane.chat import PATH, SEPARATOR, Tab, chats, connect_packet
from tests.dataplane.peers import chunked, get, ok, post
from tests.dataplane.world import World, run


@pytest.mark.parametrize("in_chunks", [False, True])
def test_sid_gets_the_pin_and_loses_it_again(in_chunks: bool) -> None:
    """The client sees pin and sid, the backend its own sid, in polls, posts and upgrades."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        chat.chunks = in_chunks
        tab = Tab(world)
        assert await tab.handshake() == world.pin("a") + b".a-sid-0"
        assert (await (await tab.post(connect_packet("session-S"))).response()).body == b"ok"
        await tab.listen(b'40{"sid":"a"}')
        socket = await tab.socket()
        socket.say(b"2probe")
        assert await socket.hear() == b"3probe"
        for kind in ("poll", "post", "upgrade"):
            assert [r.target.rpartition(b"&")[2] for r in chat.asked(kind)] == [b"sid=a-sid-0"]

    run(test)


def test_answer_of_a_handshake_passes_otherwise_unchanged() -> None:
    """Fields and the rest of the packets stay; the length is that of the longer body; nothing is packed."""

    async def test(world: World) -> None:
        packet = b'0{"upgrades":[], "sid" : "abc" ,"pingInterval":25000}'
        client = (await world.client()).say(get(PATH + b"polling", b"Accept-Encoding: gzip, br"))
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"accept-encoding") is None
        backend.say(ok(packet + SEPARATOR + b'4"sid":"abc"', b"X-A: 1"))
        response = await client.response()
        pinned = world.pin("a") + b".abc"
        assert response.body == packet.replace(b"abc", pinned) + SEPARATOR + b'4"sid":"abc"'
        assert response.get(b"x-a") == b"1"

    run(test)


@pytest.mark.parametrize(("evict_after", "patience"), [(5.0, 20_000), (45.0, 45_000), (180.0, 180_000)])
def test_a_client_is_as_patient_as_the_proxy(evict_after: float, patience: int) -> None:
    """It waits for a silent backend as long as its sessions stay there, and no shorter than it was told."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(PATH + b"polling"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b'0{"sid":"abc","pingTimeout":20000,"pingInterval":25000}'))
        told = json.loads((await client.response()).body[1:])
        assert (told["pingTimeout"], told["pingInterval"]) == (patience, 25_000)

    run(test, health={"evict_after": evict_after})


@pytest.mark.parametrize("body", [b"", b"hello", b"0{}", b'{"sid":"abc"}', b"x" * 60_000])
def test_what_is_no_handshake_passes_as_it_is(body: bytes) -> None:
    """An answer that is no OPEN packet is none of our business."""

    async def test(world: World) -> None:
        for framed in (
            ok(body),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body or b"-"),
        ):
            client = (await world.client()).say(get(PATH + b"polling"))
            backend = await world.backend.accept()
            await backend.request()
            backend.say(framed).close()
            assert (await client.response()).body in (body, b"-")

    run(test)


def test_refused_handshake_passes() -> None:
    """A handshake that the backend refuses is refused in its words."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(PATH + b"polling"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno")
        response = await client.response()
        assert (response.status, response.body) == (400, b"no")

    run(test)


def test_endless_handshake_is_refused() -> None:
    """An answer that is too long to be a handshake is not gathered for ever."""

    async def test(world: World) -> None:
        client = (await world.client()).say(get(PATH + b"polling"))
        backend = await world.backend.accept()
        await backend.request()
        backend.say(ok(b"0" * 200_000))
        await client.gone()

    run(test)


def test_http_1_0_handshake() -> None:
    """The rewritten answer has a length, also where it came in chunks and the client knows none."""

    async def test(world: World) -> None:
        chats(world)["a"].chunks = True
        answer = await world.ask(get(PATH + b"polling", version=b"1.0"))
        assert answer.get(b"content-length") == b"%d" % len(answer.body)
        assert json.loads(answer.body[1:])["sid"] == world.pin("a").decode() + ".a-sid-0"

    run(test)


def unknown(world: World) -> dict[str, bytes]:
    """Sids of backends that are down, gone or were never there."""
    return {"down": world.pin("a") + b".x", "gone": world.pin("b") + b".x", "forged": b"AAAAAAAAAAAA.x"}


@pytest.mark.parametrize("why", ["down", "gone", "forged"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
def test_sid_of_a_backend_that_is_no_more(why: str, method: bytes) -> None:
    """A pin that is void is answered as Engine.IO answers an unknown session, so the client connects anew."""

    async def test(world: World) -> None:
        sid = unknown(world)[why]
        world.observe("a", Observation.REFUSED)
        world.parts.fleet.remove(world.known("b"))
        client = await world.client()
        for _ in range(2):
            client.say(post(PATH + b"polling&sid=" + sid, b"2", method=method))
            response = await client.response(to_head=method == b"HEAD")
            assert response.status == 400
            if method != b"HEAD":
                assert json.loads(response.body) == {"code": 1, "message": "Session ID unknown"}

    run(test, "abc")


def test_poll_that_waits_at_a_backend_that_goes_down() -> None:
    """Polls of a backend that is found down are told at once that their session is gone."""

    async def test(world: World) -> None:
        chat = chats(world)["a"]
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        poll = await tab.poll()
        await world.until(lambda: chat.asked("poll"))
        world.backends[0].refuse()
        world.observe("a", Observation.REFUSED)
        assert (await poll.response()).status == 400

    run(test, "ab")


def test_poll_whose_backend_refuses_connections() -> None:
    """A pinned poll never goes to another backend: refused means that its session is gone."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await world.backends[0].end()
        assert (await (await tab.poll()).response()).status == 400
        assert instances["b"].backend.requests == []

    run(test, "ab")


def test_sid_without_a_pin() -> None:
    """A sid from before the proxy stood there goes where the browser's pin says; the backend judges it."""

    async def test(world: World) -> None:
        chat = chats(world)["b"]
        answer = await world.ask(get(PATH + b"polling&sid=old", world.cookie("b")))
        assert (answer.status, chat.asked("poll")[0].target) == (400, PATH + b"polling&sid=old")

    run(test, "ab")


def test_drained_backend_keeps_its_transports() -> None:
    """A backend that is drained goes on with the sids it has, and gets no new ones."""

    async def test(world: World) -> None:
        instances = chats(world)
        tab = Tab(world, world.cookie("a"))
        await tab.handshake()
        await (await tab.post(connect_packet("session-S"))).response()
        world.parts.fleet.set_admin_state(world.known("a"), AdminState.DRAIN)
        assert (await (await tab.post(b'42["hi"]')).response()).status == 200
        await tab.listen(b'42["echo","a"]')
        await Tab(world, world.cookie("a")).handshake()
        assert len(instances["b"].asked("handshake")) == 1

    run(test, "ab")
