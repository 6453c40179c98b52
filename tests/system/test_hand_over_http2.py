"""Clients that poll over HTTP/2 go on under their sid while their instances are killed."""

import asyncio
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.clients import Clients
from tests.support.http2_programs import Combined
from tests.support.link import KINDS, Exchange, Transports
from tests.support.sharing import START, RunSharing
from tests.support.size import sized
from tests.support.talks import Talk, check_once, most_used, stream, talks_of, together
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(sized(300, in_full=600))]

NAME = "chat.test"
POLLING = [kind for kind in KINDS if kind.transports is Transports.POLLING]
TALKS = sized(12, in_full=60)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunSharing]:
    """Three replicas behind TLS."""
    run = RunSharing(tmp_path, 3, tls=Authority(tmp_path).issue(NAME))
    try:
        run.start()
        yield run
    finally:
        run.end()
        print(run.tail(200))


@pytest.fixture
def combined(run: RunSharing, tmp_path: Path) -> Iterator[Combined]:
    """What carries all clients over one connection in HTTP/2."""
    target = run.url.replace("http://", "https://")
    combined = Combined(tmp_path, target, tmp_path / "authority.pem", NAME)
    try:
        combined.start()
        yield combined
    finally:
        combined.kill9()
        print(combined.tail(50))


def polls(talk: Talk) -> list[Exchange]:
    """The polls of a client, and what it posts."""
    return [each for each in talk.chat.link.exchanges if "sid=" in each.path]


def test_polls_of_an_instance_that_is_killed(run: RunSharing, combined: Combined) -> None:
    """All of them wait on one connection; in rest and in the middle of an answer they notice nothing."""

    async def scenario() -> None:
        async with Clients(combined.url) as clients:
            talks = await talks_of(clients, islice(cycle(POLLING), TALKS))
            assert run.metric("chainlit_proxy_open_connections", protocol="h2") == 1
            assert run.metric("chainlit_proxy_open_connections", protocol="http/1.1") == 0
            await run.kill(most_used(talks))
            await together(talk.say() for talk in talks)
            await eventually(run.all_healthy, START, "a new replica")
            victim = most_used(talks)
            asking = await stream([talk for talk in talks if talk.at == victim], "stream 2000 0.02")
            await run.kill(victim)
            await together(asking)
            await together(talk.say() for talk in talks)
            for talk in talks:
                talk.check_never_away()
                assert len({each.path.partition("sid=")[2].partition("&")[0] for each in polls(talk)}) == 1
            check_once(run.journal, talks)
            assert run.metric("chainlit_proxy_hand_overs_total", result="done") > 1
            assert run.metric("chainlit_proxy_connections_total", protocol="http/1.1") == 0
            assert run.metric("chainlit_proxy_limits_hit_total") == 0

    asyncio.run(scenario())
