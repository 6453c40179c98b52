"""Certificates from a real authority: how the proxy gets them, renews them, and goes on without."""

import asyncio
import logging
import ssl
import stat
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from acme import client as acme_client

from proxy import tls
from proxy.config.tls_settings import AcmeSettings
from proxy.controlplane import acme_order
from proxy.controlplane.certificate_store import CertificateStore
from tests.support.https_site import HttpsSite
from tests.support.pebble_server import Pebble
from tests.support.processes import free_port

DAY = 86400.0

Make = Callable[..., HttpsSite]
Test = Callable[[Make, Pebble], Awaitable[None]]


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Where the proxies of this file listen: plain and with TLS."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory, ports: tuple[int, int]) -> Iterator[Pebble]:
    """An authority whose certificates live for 90 days."""
    authority = Pebble(tmp_path_factory.mktemp("pebble"), ports[0], certificateValidityPeriod=int(90 * DAY))
    authority.start()
    yield authority
    authority.end()


@pytest.fixture
def play(pebble: Pebble, ports: tuple[int, int], tmp_path: Path) -> Callable[[Test], None]:
    """Runs a test that makes proxies which share one folder."""

    def make(**acme: Any) -> HttpsSite:
        return HttpsSite(pebble, tmp_path / "state", *ports, **acme)

    def run(test: Test) -> None:
        async def all_of_it() -> None:
            await test(make, pebble)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(all_of_it())

    return run


def test_the_first_certificate(play: Callable[[Test], None], tmp_path: Path) -> None:
    """One that nobody trusts stands in until the authority has issued one; nobody is refused meanwhile."""

    async def test(make: Make, pebble: Pebble) -> None:
        trust = pebble.client()
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        async with make(domains=["chat.test", "www.chat.test"]) as site:
            with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
                await site.shown(trust)
            kept = await asyncio.open_connection("127.0.0.1", site.secure_port, ssl=anybody)
            site.serving.set()
            first = await site.until_shown(trust)
            assert await site.serial(trust, "www.chat.test") == first
            assert site.counts == (1, 0)
            kept[1].write(b"GET / HTTP/1.1\r\nHost: chat.test\r\n\r\n")  # it was not dropped
            assert (await kept[0].readline()).startswith(b"HTTP/1.1 503")
            kept[1].close()
            assert await site.ask(b"GET /.well-known/acme-challenge/x HTTP/1.0\r\n\r\n") != b""
            assert not list((tmp_path / "state" / "challenges").iterdir())

    play(test)


def test_nobody_else_reads_the_folder(play: Callable[[Test], None], tmp_path: Path) -> None:
    """Every file in it is the user's alone, whatever the umask, and so is every folder."""

    async def test(make: Make, _: Pebble) -> None:
        async with make() as site:
            site.serving.set()
            await site.until(lambda: site.counts == (1, 0))

    play(test)
    found = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert len(found) == 7
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}


def test_a_restart_asks_nobody(play: Callable[[Test], None]) -> None:
    """What was issued is used again, without a word to the authority for a new one."""

    async def test(make: Make, pebble: Pebble) -> None:
        trust = pebble.client()
        async with make() as site:
            site.serving.set()
            first = await site.until_shown(trust)
        issued = pebble.orders()
        async with make() as site:
            assert await site.serial(trust) == first
            site.serving.set()
            await site.until(lambda: site.renewals._ask > time.time())  # it has looked
            assert (pebble.orders(), site.counts) == (issued, (0, 0))

    play(test)


def test_it_is_renewed_after_two_thirds_of_its_life(play: Callable[[Test], None]) -> None:
    """Not before, and with the account that there is; open connections keep the certificate that they met."""

    async def test(make: Make, pebble: Pebble) -> None:
        trust = pebble.client()
        async with make() as site:
            site.serving.set()
            first = await site.until_shown(trust)
            account = site.renewals._store and site.renewals._store.account()
            kept = await asyncio.open_connection(
                "127.0.0.1", site.secure_port, ssl=trust, server_hostname="chat.test"
            )
            site.ahead = 59 * DAY
            site.look()
            await site.until(lambda: not site.renewals._news.is_set())
            assert await site.renewals._due(site.config.tls.acme, _store(site)) > time.time() + site.ahead
            assert site.counts == (1, 0)
            site.ahead = 65 * DAY
            site.look()
            await asyncio.sleep(0)
            site.look()  # in the middle of that
            await site.until(lambda: site.counts[0] == 2)
            site.ahead = 0
            second = await site.until_shown(trust, but=first)
            assert kept[1].get_extra_info("ssl_object").getpeercert()["serialNumber"] == first != second
            kept[1].write(b"GET / HTTP/1.1\r\nHost: chat.test\r\n\r\n")
            assert (await kept[0].readline()).startswith(b"HTTP/1.1 503")
            kept[1].close()
            assert _store(site).account() == account

    play(test)


def test_the_authority_may_want_it_sooner(
    play: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says by renewal information goes before the two thirds, but never into the last tenth."""
    said = [time.time() + DAY, time.time() - 1, time.time() + 365 * DAY]
    named = [_Moment(at) for at in said]
    asked: list[bytes] = []

    def renewal_time(_: acme_client.ClientV2, pem: bytes) -> tuple["_Moment", "_Moment"]:
        asked.append(pem)
        return named[min(len(asked), 3) - 1], _Moment(time.time() + 6 * 3600)

    monkeypatch.setattr(acme_client.ClientV2, "renewal_time", renewal_time)

    async def test(make: Make, pebble: Pebble) -> None:
        async with make() as site:
            site.serving.set()
            await site.until(lambda: site.renewals._wanted == said[0])
            site.look()
            await site.until(lambda: site.counts == (2, 0) and site.renewals._wanted == said[2])
            facts = _store(site).facts()
            assert facts is not None
            due = await site.renewals._due(site.config.tls.acme, _store(site))
            assert due == facts.since + 0.9 * (facts.until - facts.since)
            assert len(asked) == 3  # as seldom as it wants
            assert tls.read_certificate(asked[0].decode()).names == ("chat.test",)

    play(test)


def test_what_is_due_at_once_is_not_ordered_without_end(
    play: Callable[[Test], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A clock that is months ahead, or an authority with odd ideas, is told of, and the next try waits."""

    async def test(make: Make, pebble: Pebble) -> None:
        issued = pebble.orders()
        async with make() as site:
            site.ahead = 100 * DAY
            site.serving.set()
            await site.until(lambda: site.counts == (1, 1))
            assert pebble.orders() == issued + 1
            assert "what was issued is due already" in caplog.text

    play(test)


class _Moment:
    """A time as the library tells it."""

    def __init__(self, at: float) -> None:
        self._at = at

    def timestamp(self) -> float:
        """As datetime."""
        return self._at


def _store(site: HttpsSite) -> CertificateStore:
    assert site.renewals._store is not None
    return site.renewals._store


def test_an_authority_that_is_down(
    pebble: Pebble, play: Callable[[Test], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A renewal that fails is one warning with the next try; the certificate stays. A reload tries again."""

    async def test(make: Make, pebble: Pebble) -> None:
        trust = pebble.client()
        async with make() as site:
            site.serving.set()
            first = await site.until_shown(trust)
            pebble.kill9()
            site.ahead = 65 * DAY
            site.look()
            await site.until(lambda: site.counts == (1, 1))
            assert await site.serial(trust) == first
            (line,) = [
                each for each in caplog.records if each.name == "proxy.acme" and each.levelno > logging.INFO
            ]
            assert line.getMessage().startswith(
                "no new certificate for chat.test: the authority cannot be reached: Connection refused; "
                "the next try is in 2 minutes"
            )
            (event,) = [each for each in site.parts.events.after(0) if "no new" in each.text]
            assert event.kind == "certificate"
            pebble.start()  # it has forgotten the account, so another is made
            site.look()
            await site.until(lambda: site.counts[0] == 2)
            assert "registering another" in caplog.text

    try:
        play(test)
    finally:
        if not pebble.running:
            pebble.start()


def test_the_pauses_grow(play: Callable[[Test], None]) -> None:
    """Five tries in the first hour, which is what Let's Encrypt takes, then fewer, but some each day."""

    async def test(make: Make, _: Pebble) -> None:
        async with make() as site:
            pauses = [site.renewals._failed(site.config.tls.acme, "x") for _ in range(12)]
            tries = [sum(pauses[:count]) for count in range(len(pauses))]
            assert sum(at < 3600 for at in tries) in {5, 6}
            assert max(pauses) <= 6 * 3600 * 1.2
            assert site.counts == (0, 12)

    play(test)


def test_a_refused_proof(play: Callable[[Test], None], caplog: pytest.LogCaptureFixture) -> None:
    """A name that leads elsewhere is told by name, with the authority's reason; then it is put right."""

    async def test(make: Make, pebble: Pebble) -> None:
        pebble.misplace("elsewhere.test")
        async with make(domains=["chat.test", "elsewhere.test"]) as site:
            site.serving.set()
            await site.until(lambda: site.counts == (0, 1))
            assert (
                "no new certificate for chat.test, elsewhere.test: elsewhere.test was not proved: "
                in caplog.text
            )
            assert "connection refused" in caplog.text
            assert await site.serial(pebble.client()) == ""  # what stands in goes on standing in
            pebble.place("elsewhere.test")
            site.look()
            await site.until_shown(pebble.client(), name="elsewhere.test")

    play(test)


def test_an_account_that_was_deactivated(
    play: Callable[[Test], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Another account with another key takes its place, and the log tells."""

    async def test(make: Make, pebble: Pebble) -> None:
        async with make() as site:
            site.serving.set()
            first = await site.until_shown(pebble.client())
            before = _store(site).account()
            assert before is not None
            await asyncio.to_thread(_deactivate, site.config.tls.acme, _store(site))
            site.ahead = 65 * DAY
            site.look()
            await site.until(lambda: site.counts[0] == 2)
            site.ahead = 0
            await site.until_shown(pebble.client(), but=first)
            after = _store(site).account()
            assert after is not None
            assert before[0] != after[0]
            assert before[1] != after[1]
            assert "does not accept the account any more, registering another" in caplog.text

    play(test)


@pytest.mark.parametrize(("name", "data"), [("account.pem", b"-----BEGIN PRIV"), ("account.url", b"\xff")])
def test_half_an_account(play: Callable[[Test], None], name: str, data: bytes) -> None:
    """What cannot be used of it is as good as nothing: another is made, and the certificate is there."""

    async def test(make: Make, _: Pebble) -> None:
        async with make() as site:
            _store(site).keep_account(b"a key", "https://a.test/1")
            (_store(site).folder / name).write_bytes(data)
            site.serving.set()
            await site.until(lambda: any(site.counts))
            assert site.counts == (1, 0)

    play(test)


def _deactivate(settings: AcmeSettings, store: CertificateStore) -> None:
    network, directory = acme_order._connected(settings, store)
    assert network.account is not None
    acme_client.ClientV2(directory, network).deactivate_registration(network.account)


def test_two_proxies_with_one_folder(play: Callable[[Test], None]) -> None:
    """One of them orders, also at renewals; the other uses what it got, and answers its proofs."""

    async def test(make: Make, pebble: Pebble) -> None:
        trust, issued = pebble.client(), pebble.orders()
        async with make() as one, make() as two:
            one.serving.set()
            two.serving.set()
            await one.until(lambda: one.counts[0] + two.counts[0] == 1)
            context = _default(one), _default(two)
            await one.until(lambda: len({each.facts for each in context}) == 1 and context[0].facts.since > 0)
            first = await one.until_shown(trust)
            for site in (one, two):
                site.ahead = 70 * DAY
                site.look()
            await one.until(lambda: one.counts[0] + two.counts[0] == 2)
            for site in (one, two):
                site.ahead = 0
            await one.until_shown(trust, but=first)
            await two.until(lambda: _default(one).facts == _default(two).facts)
            assert pebble.orders() == issued + 2

    play(test)


def _default(site: HttpsSite) -> tls.Certificate:
    assert site.parts.plane.certificates is not None
    return site.parts.plane.certificates.pairs[0]


def test_other_domains_are_another_certificate(play: Callable[[Test], None]) -> None:
    """After a change of the names there is a new order, and the old certificate stays for who has it."""

    async def test(make: Make, pebble: Pebble) -> None:
        async with make() as site:
            site.serving.set()
            await site.until_shown(pebble.client())
        async with make(domains=["chat.test", "more.test"]) as site:
            site.serving.set()
            await site.until_shown(pebble.client(), name="more.test")
            assert site.counts == (1, 0)

    play(test)


def test_other_domains_in_the_middle_of_an_order(
    play: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reload meanwhile the new names are ordered at once, as if nothing had been issued."""
    finalize = acme_client.ClientV2.poll_and_finalize

    async def test(make: Make, _: Pebble) -> None:
        async with make() as site:
            loop, settings = asyncio.get_running_loop(), site.config.tls.acme
            other = settings.model_copy(update={"domains": ("chat.test", "more.test")})

            def reloaded(*given: Any) -> Any:
                monkeypatch.undo()
                loop.call_soon_threadsafe(site.renewals.configure, other)
                return finalize(*given)

            monkeypatch.setattr(acme_client.ClientV2, "poll_and_finalize", reloaded)
            site.serving.set()
            await site.until(lambda: sum(site.counts) == 2)
            assert site.counts == (2, 0)

    play(test)
