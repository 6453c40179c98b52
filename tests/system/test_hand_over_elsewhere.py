"""The same with `serve` before instances that share by a Redis: what a hand-over has to bring along."""

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.sessions.conftest import redis_server
from tests.support.certificates import Authority
from tests.support.clients import Clients
from tests.support.link import COOKIE_KINDS, Driver
from tests.support.python_link import PythonLink
from tests.support.redis_server import RedisServer
from tests.support.talks import Talk, check_once, talks_of, together, unnoticed
from tests.support.waiting import eventually
from tests.system.test_sessions_elsewhere import MakeSite, Site, make_site

__all__ = ["make_site", "redis_server"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PYTHON_KINDS = [kind for kind in COOKIE_KINDS if kind.driver is Driver.PYTHON]
SHARED = {"shared": True}
SECRET = {"CHAINLIT_AUTH_SECRET": "s" * 40}
FEW = 12
LASTS = 4  # seconds of a login that is short


async def log_in(talk: Talk) -> None:
    """As a user of its own."""
    assert isinstance(talk.chat.link, PythonLink)
    talk.chat.link.log_in(f"user-{talk.chat.session}")
    await talk.chat.http("POST", "/auth/header")


async def kill_one(site: Site, talks: list[Talk]) -> None:
    """Ends an instance, and all say something at once."""
    home = site.home(talks[0])
    home.kill9()
    await together(talk.say() for talk in talks)
    assert f"pid{home.pid}" not in {talk.at for talk in talks}


def test_over_redis(make_site: MakeSite, redis_server: RedisServer) -> None:
    """Told that sessions are shared, the proxy hands them over as `run` does."""
    site = make_site(redis_server.url, sessions=SHARED)

    async def scenario() -> None:
        async with unnoticed(site.url, site.journal, FEW) as talks:
            for _ in range(2):
                await kill_one(site, talks)
                await asyncio.to_thread(site.heal)

    asyncio.run(scenario())


def test_over_tls(make_site: MakeSite, redis_server: RedisServer, tmp_path: Path) -> None:
    """Clients that speak TLS with the proxy keep their connection."""
    authority = Authority(tmp_path)
    site = make_site(redis_server.url, sessions=SHARED, tls=authority.issue("127.0.0.1"))
    trusts: ssl.SSLContext = authority.client()

    async def scenario() -> None:
        async with Clients(site.url.replace("http:", "https:"), trusts=trusts) as clients:
            talks = await talks_of(clients, PYTHON_KINDS * 2)
            await kill_one(site, talks)
            for talk in talks:
                talk.check_never_away()
            check_once(site.journal, talks)

    asyncio.run(scenario())


def test_a_login_and_a_thread_come_along(make_site: MakeSite, redis_server: RedisServer) -> None:
    """Each session is that of its user still, with its thread in the data layer; nobody resumes it."""
    site = make_site(redis_server.url, sessions=SHARED, env=lambda _: {"LOGIN": "1", "DATA": "1"} | SECRET)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            talks = await talks_of(clients, PYTHON_KINDS * 2, log_in)
            threads = {talk: talk.last.fields["thread"] for talk in talks if talk.last}
            await kill_one(site, talks)
            for talk in talks:
                reply = await talk.chat.ask()
                assert reply.fields["user"] == f"user-{talk.chat.session}"
                assert reply.fields["thread"] == threads[talk]
                talk.check_never_away()
            check_once(site.journal, talks)
            assert not site.journal.entries(kind="resume")
            steps = site.journal.entries(kind="step")
            assert {step.details["thread"] for step in steps} == set(threads.values())

    asyncio.run(scenario())


def test_a_login_that_has_expired(make_site: MakeSite, redis_server: RedisServer) -> None:
    """It does not come along: the client is told to connect anew, and then what is wrong."""
    env = {"LOGIN": "1", "LOGIN_LASTS": str(LASTS)} | SECRET
    site = make_site(redis_server.url, sessions=SHARED, env=lambda _: env)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            talks = await talks_of(clients, PYTHON_KINDS, log_in)
            await asyncio.sleep(LASTS + 1)
            for instance in list(site.instances.values())[:1]:
                there = [talk for talk in talks if site.home(talk) is instance]
                instance.kill9()
            for talk in there:
                await eventually(
                    lambda chat=talk.chat: "connect_error" in {e.name for e in chat.events},  # type: ignore[misc]
                    20,
                    lambda chat=talk.chat: chat.story(),  # type: ignore[misc]
                )
                assert talk.chat.connects == 1, talk.chat.story()
                assert talk.chat.losses == 1, talk.chat.story()
            check_once(site.journal, talks)

    asyncio.run(scenario())
