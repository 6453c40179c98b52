"""Clients that speak TLS to the proxy."""

import asyncio
import os
import socket
import ssl
import time
import warnings
from pathlib import Path

import pytest

from proxy import net
from proxy.config import Address
from proxy.config.tls_settings import TlsSettings
from proxy.errors import Limit
from tests.dataplane import deflated
from tests.dataplane.chat import Tab, chats, connect_packet
from tests.dataplane.frames import ACCEPT, Socket, upgrade
from tests.dataplane.peers import WAIT, Cut, Message, Peer, get, ok, post
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run
from tests.support.certificates import Authority

NAME = "chat.test"
POLLING = b"/ws/socket.io/?EIO=4&transport=polling"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


async def secure(world: World, context: ssl.SSLContext) -> Peer:
    """A new connection to the proxy, with TLS."""
    async with asyncio.timeout(WAIT):
        reader, writer = await asyncio.open_connection(*world.address, ssl=context, server_hostname=NAME)
    world.clients.append(Peer(reader, writer))
    await world.until(lambda: world.plane.site.stats.connections == len(world.clients))
    return world.clients[-1]


async def secure_tunnel(world: World, context: ssl.SSLContext) -> tuple[Peer, Peer]:
    """A client with TLS and its backend after the 101."""
    client = (await secure(world, context)).say(upgrade(b"/ws"))
    backend = await world.backend.accept()
    await backend.request()
    backend.say(ACCEPT)
    assert (await client.response()).status == 101
    return client, backend


def serial(peer: Peer) -> str:
    """The serial number of the certificate that a client was shown."""
    found = peer.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_offer(authority: Authority, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken, with forward secrecy, ALPN h2 and no compression."""

    async def test(world: World) -> None:
        context = authority.client()
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        client = await secure(world, context)
        session = client.writer.get_extra_info("ssl_object")
        assert session.version() == version.name.replace("_", ".")
        assert session.selected_alpn_protocol() == "h2"
        assert session.compression() is None
        assert session.cipher()[0].startswith(("ECDHE-", "TLS_"))

    run(test, tls=authority.issue(NAME))


def test_a_compressed_websocket(authority: Authority) -> None:
    """Compression is inside of TLS: what both sides say is read, and a goodbye is answered."""

    async def test(world: World) -> None:
        chats(world)
        tab = Tab(world)
        client = (await secure(world, authority.client())).say(upgrade(tab.path + b"websocket"))
        socket = await tab.socket(client)
        assert isinstance(socket, deflated.Socket)
        assert (await socket.hear()).startswith(b"0")
        socket.say(connect_packet("session-s"), b'42["%b"]' % (b"question " * 1000))
        assert [(await socket.hear())[:5] for _ in range(2)] == [b'40{"s', b'42["e']
        (tunnel,) = world.plane.tunnels
        tunnel.say_goodbye()
        assert await socket.hear() == (1012).to_bytes(2, "big")
        socket.say((1012).to_bytes(2, "big"), opcode=8)
        await client.gone()

    run(test, tls=authority.issue(NAME), websocket={"compress": True})


def test_old_versions_are_refused(authority: Authority) -> None:
    """A client that speaks TLS 1.1 at most gets no connection; with TLS 1.2 it does."""

    async def test(world: World) -> None:
        context = authority.client()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is old is the point
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            await asyncio.open_connection(*world.address, ssl=context, server_hostname=NAME)
        assert world.plane.site.stats.connections == 0
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        await secure(world, context)

    run(test, tls=authority.issue(NAME))


def test_weak_ciphers_are_refused(authority: Authority) -> None:
    """A client without a cipher that has forward secrecy and authenticated encryption is refused."""

    async def test(world: World) -> None:
        context = authority.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AES+SHA256:RSA+AES")
        with pytest.raises(OSError):
            await asyncio.open_connection(*world.address, ssl=context, server_hostname=NAME)
        context.set_ciphers("ECDHE+AESGCM")
        await secure(world, context)

    run(test, tls=authority.issue(NAME))


def test_plain_http_is_not_answered(authority: Authority) -> None:
    """A client that says a request without TLS is closed, and no backend hears of it."""

    async def test(world: World) -> None:
        reader, writer = await asyncio.open_connection(*world.address)
        writer.write(get())
        with pytest.raises(Cut):
            await Peer(reader, writer).head()
        writer.close()
        assert world.plane.site.stats.connections == 0

    run(test, tls=authority.issue(NAME))


def test_silent_client_is_given_up(authority: Authority) -> None:
    """A handshake that does not come is waited for as long as for a head."""

    async def test(world: World) -> None:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(*world.address)
        await Peer(reader, writer).gone()
        writer.close()
        assert 0.9 < time.monotonic() - began < WAIT / 2
        assert world.plane.site.stats.limits[Limit.SLOW_HEAD] == 1
        assert world.plane.site.clients.total == 0

    run(test, tls=authority.issue(NAME), timeouts={"head": 1})


def test_a_proxy_that_stood_still_finds_no_handshake_late(authority: Authority) -> None:
    """What the client has said meanwhile is read first."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = socket.create_connection(world.address)
        await world.until(lambda: world.plane.site.clients.total)
        world.stand_still(1.6)
        await asyncio.sleep(0)  # the timer is due before anything is read
        context = authority.client()
        async with asyncio.timeout(WAIT):
            reader, writer = await asyncio.open_connection(sock=client, ssl=context, server_hostname=NAME)
        world.clients.append(Peer(reader, writer))
        assert (await world.clients[0].say(get()).response()).status == 200
        assert not world.plane.site.stats.limits[Limit.SLOW_HEAD]

    run(test, tls=authority.issue(NAME), timeouts={"head": 1})


def test_requests_and_scheme(authority: Authority) -> None:
    """Requests pass over a kept connection, large bodies too, and the backend hears that it was TLS."""
    large = bytes(range(256)) * 8192

    async def test(world: World) -> None:
        async def answer(peer: Peer, message: Message) -> None:
            peer.say(ok(message.body or b"-", b"X-Proto: " + (message.get(b"x-forwarded-proto") or b"")))

        world.backend.serve(answer)
        client = await secure(world, authority.client())
        for body in (b"small", large, b"again"):
            answered = await client.say(post(b"/", body)).response()
            assert answered.body == body
            assert answered.get(b"x-proto") == b"https"

    run(test, tls=authority.issue(NAME))


def test_pin_cookie_of_a_polling_handshake(authority: Authority) -> None:
    """Over our own TLS the cookie is Secure, SameSite=None and Partitioned."""

    async def test(world: World) -> None:
        async def answer(peer: Peer, _: Message) -> None:
            peer.say(ok(b'0{"sid":"abc","upgrades":["websocket"]}'))

        world.backend.serve(answer)
        answered = await (await secure(world, authority.client())).say(get(POLLING)).response()
        assert answered.body.startswith(b'0{"sid":"' + world.pin("a") + b".abc")
        cookie = answered.get(b"set-cookie")
        assert cookie is not None
        assert cookie.endswith(b"; Path=/; HttpOnly; Secure; SameSite=None; Partitioned")

    run(test, tls=authority.issue(NAME))


def test_websocket(authority: Authority) -> None:
    """Frames of any size pass a tunnel with TLS both ways."""

    async def test(world: World) -> None:
        client, backend = await secure_tunnel(world, authority.client())
        ours, theirs = Socket(client, client=True), Socket(backend, client=False)
        for payload in (b"hello", b"x" * 200, b"y" * 200_000):
            ours.say(payload)
            assert await theirs.hear() == payload
            theirs.say(payload[::-1])
            assert await ours.hear() == payload[::-1]

    run(test, tls=authority.issue(NAME))


def test_client_that_ends_its_websocket(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """A client's end of TLS ends the tunnel: the backend is told, nothing is left, nothing is logged."""

    async def test(world: World) -> None:
        client, backend = await secure_tunnel(world, authority.client())
        client.say(b"last")
        client.close()
        assert await backend.rest() == b"last"
        backend.close()
        await world.until(lambda: not world.plane.tunnels)

    run(test, tls=authority.issue(NAME), debug=False)  # which would warn of slow steps
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


def test_client_that_ends_without_goodbye(authority: Authority) -> None:
    """A connection that ends below TLS, without its closing alert, ends the tunnel as well."""

    async def test(world: World) -> None:
        client, backend = await secure_tunnel(world, authority.client())
        with socket.socket(fileno=os.dup(client.writer.get_extra_info("socket").fileno())) as below:
            below.shutdown(socket.SHUT_WR)
        await backend.gone()
        await world.until(lambda: not world.plane.tunnels)

    run(test, tls=authority.issue(NAME))


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_response_that_is_cut_by_the_backend(authority: Authority, framing: bytes) -> None:
    """A client with TLS sees it cut off as well: no closing alert makes it look whole."""

    async def test(world: World) -> None:
        client = (await secure(world, authority.client())).say(get())
        backend = await world.backend.accept()
        await backend.request()
        backend.say(b"HTTP/1.1 200 OK\r\n%b\r\n4\r\nhalf" % framing)
        await client.head()
        assert await client.read(7) == b"4\r\nhalf"
        backend.reset()
        with pytest.raises(Cut):
            await client.rest()

    run(test, tls=authority.issue(NAME))


def test_backend_that_ends_its_half(authority: Authority) -> None:
    """A backend that has said all ends the tunnel: TLS has no half-close to pass on."""

    async def test(world: World) -> None:
        client, backend = await secure_tunnel(world, authority.client())
        backend.say(b"last").half_close()
        assert await client.rest() == b"last"
        await backend.gone()
        await world.until(lambda: not world.plane.tunnels)

    run(test, tls=authority.issue(NAME))


def test_client_that_leaves_a_request(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """A client that closes while it waits for an answer leaves nothing behind, also not at the backend."""

    async def test(world: World) -> None:
        client = (await secure(world, authority.client())).say(get(b"/slow"))
        backend = await world.backend.accept()
        await backend.request()
        client.close()
        await backend.gone()
        await world.until(lambda: not world.plane.connections)

    run(test, tls=authority.issue(NAME), debug=False)  # which would warn of slow steps
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


def test_new_certificate_for_new_connections(authority: Authority) -> None:
    """A pair that changed on disk is used within seconds; open connections and tunnels go on."""
    pair = authority.issue(NAME)

    async def test(world: World) -> None:
        assert world.plane.certificates is not None
        (certificate,) = world.plane.certificates.pairs
        kept = await secure(world, authority.client())
        talking, backend = await secure_tunnel(world, authority.client())
        expires = certificate.expires
        authority.issue(NAME)
        await world.until(lambda: certificate.expires != expires)
        fresh = await secure(world, authority.client())
        assert serial(fresh) != serial(kept)
        talking.say(b"still")
        assert await backend.read(5) == b"still"
        world.backend.serve(_greet)
        for client in (kept, fresh):
            assert (await client.say(get()).response()).body == b"hello"

    async def _greet(peer: Peer, _: Message) -> None:
        peer.say(ok(b"hello"))

    time.sleep(1.1)  # a certificate's times are whole seconds: the new one must differ
    run(test, tls=pair)


def test_unix_sockets_stay_plain(authority: Authority, tmp_path: Path) -> None:
    """With a certificate a unix listener still speaks plain HTTP, for a proxy on this machine."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        plane, path = world.plane, str(tmp_path / "s")
        assert plane.certificates is not None
        sock = net.bind(Address(path=path))
        await plane.listeners.change([world.listening, sock], plane.certificates.context, greeted=False)
        peer = Peer(*await asyncio.open_unix_connection(path))
        assert (await peer.say(get()).response()).status == 200
        peer.close()
        world.guests += 1

    run(test, tls=authority.issue(NAME))


@pytest.mark.parametrize("seconds", [0, 300])
def test_browsers_are_told_to_come_by_https(authority: Authority, seconds: int) -> None:
    """What backends answer says so, if that is wished and there is TLS; also after a reload."""
    expected = b"max-age=300" if seconds else None

    async def test(world: World) -> None:
        world.backend.serve(echo)
        client = await secure(world, authority.client())
        for _ in range(2):
            assert (await client.say(get()).response()).get(b"strict-transport-security") == expected
        site = world.plane.site
        site.configure(site.config.model_copy(update={"tls": TlsSettings(hsts=300)}))  # no TLS any more
        assert (await client.say(get()).response()).get(b"strict-transport-security") is None

    run(test, tls={**authority.issue(NAME), "hsts": seconds})


def test_several_names_on_one_listener(authority: Authority) -> None:
    """Each client is shown the certificate for the name that it asks for."""
    other = authority.issue("other.test")

    async def test(world: World) -> None:
        for name in (NAME, "other.test"):
            _, writer = await asyncio.open_connection(
                *world.address, ssl=authority.client(), server_hostname=name
            )
            assert writer.get_extra_info("ssl_object").getpeercert()["subjectAltName"] == (("DNS", name),)
            writer.close()
            world.guests += 1
        await world.until(lambda: world.plane.site.stats.connections == 2)

    run(test, tls={**authority.issue(NAME), "certificates": [other]})
