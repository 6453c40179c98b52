"""What the store, the network and other instances do to a session in the wrong moment, with real Chainlit."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.replicas import LAUNCHER, SHARING
from proxy.sessions.redis_store import RedisStore
from tests.sessions.conftest import redis_server
from tests.support.chat import Reply
from tests.support.clients import Clients
from tests.support.proxy_process import ROOT
from tests.support.redis_server import RedisServer
from tests.support.sharing import Instance
from tests.support.waiting import eventually
from tests.system.test_sessions_elsewhere import MakeSite, kill_home, make_site, opened

__all__ = ["make_site", "redis_server"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

# Starts the launcher with a Chainlit that says it is another release.
OTHER_RELEASE = """
import importlib.metadata as metadata, runpy, sys
known = metadata.version
metadata.version = lambda name: "3.0.0" if name == "chainlit" else known(name)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.resume()
    server.kill9()


@pytest.mark.parametrize("seconds", [1.3, 3])
def test_redis_stands_still_while_a_tab_comes_back(
    make_site: MakeSite, own_redis: RedisServer, seconds: float
) -> None:
    """In a turn the client reconnects to its instance: the answer goes on, and no notice is shown."""
    site = make_site(own_redis.url, names="a")

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            asking = asyncio.create_task(talk.chat.ask("stream 60 0.1", within=40))
            await eventually(lambda: talk.tokens > 3, 20, "it streams")
            own_redis.pause()
            asyncio.get_running_loop().call_later(seconds, own_redis.resume)
            await talk.chat.drop()
            talk.check(await asking)
            await talk.turn()
            assert talk.notices == 0
            before = talk.chat.connects
            site.home(talk).kill9()
            site.heal()
            await talk.back(before)
            await talk.turn()
            talk.check_starts(site.journal)

    asyncio.run(scenario())


def test_a_button_in_a_turn_does_not_end_it(make_site: MakeSite, redis_server: RedisServer) -> None:
    """A kill after it is one in a turn: the user is told, and no half of it is restored."""
    site = make_site(redis_server.url)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            asking = asyncio.create_task(talk.chat.ask("stream 2000 0.02", within=60))
            await eventually(lambda: talk.tokens > 3, 20, "it streams")
            await talk.chat.action()
            await kill_home(site, talk)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await talk.turn()
            assert talk.notices == 1

    asyncio.run(scenario())


def test_a_new_chat_leaves_nothing(make_site: MakeSite, redis_server: RedisServer) -> None:
    """What was to be written of the old one when the user ended it does not bring it back."""
    site = make_site(redis_server.url, names="a")

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            key = f"chainlit-proxy:session:{talk.chat.session}"
            assert redis_server.ask("hexists", key, "state") == ":1\r\n"
            await talk.chat.link.emit("chat_settings_change", {"level": "high"})
            asking = asyncio.create_task(talk.chat.ask("stream 20 0.02"))
            await eventually(lambda: talk.tokens > 3, 20, "it streams")
            await talk.chat.link.emit("clear_session")
            await talk.chat.link.close()
            await eventually(lambda: site.journal.entries(kind="end"), 20, "the end of the chat")
            await asyncio.sleep(1)  # longer than the turn goes on
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert redis_server.ask("hexists", key, "state") == ":0\r\n"
            assert redis_server.ask("hexists", key, "turns") == ":0\r\n"

    asyncio.run(scenario())


def test_a_frozen_instance_does_not_run_what_it_was_given(
    make_site: MakeSite, redis_server: RedisServer
) -> None:
    """A message that waited in its socket while the session went elsewhere runs only there."""
    site = make_site(redis_server.url)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            frozen, before = site.home(talk), talk.chat.connects
            frozen.pause()
            asking = asyncio.create_task(talk.chat.ask("say", within=60))
            await talk.chat.back(before, within=60)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await talk.turn()
            frozen.resume()
            await eventually(lambda: "its copy here has ended" in frozen.tail(200), 20, "the copy ends")
            await talk.turn()
            ran = [entry.instance for entry in site.journal.entries(talk.chat.session, "message")]
            assert ran[1:] == [talk.last.instance] * (len(ran) - 1) if talk.last else False
            assert f"pid{frozen.pid}" not in ran[1:]

    asyncio.run(scenario())


def test_a_client_whose_session_was_taken_connects_anew(
    make_site: MakeSite, redis_server: RedisServer
) -> None:
    """A claim that another instance had made long ago comes late: who is here goes on after a reconnect."""
    site = make_site(redis_server.url, names="a")

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            store, before = RedisStore(redis_server.url), talk.chat.connects
            await store.claim(talk.chat.session, "", "another", 1, 3600.0, 1)
            await store.close()
            with pytest.raises(AssertionError, match="no answer"):
                await talk.chat.ask("say", within=2)
            await talk.back(before)
            await talk.turn()
            talk.check_starts(site.journal)

    asyncio.run(scenario())


def test_a_start_that_does_not_return_holds_up_nothing(
    make_site: MakeSite, redis_server: RedisServer
) -> None:
    """An app whose `on_chat_start` runs on is stored at the end of each message's turn."""
    site = make_site(redis_server.url, env=lambda _: {"ENDLESS_START": "1"})

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            for _ in range(2):
                talk.check(await talk.chat.ask())
                await eventually(lambda: talk.running == 1, 20, "only the start has not ended")
            await kill_home(site, talk)
            talk.check(await talk.chat.ask())
            talk.check_starts(site.journal)

    asyncio.run(scenario())


def test_what_is_said_before_hello_waits_for_what_is_made_anew(
    make_site: MakeSite, redis_server: RedisServer
) -> None:
    """What a page has kept it says before it says hello: `on_restore` has run by then."""
    site = make_site(redis_server.url, env=lambda _: {"CODEC": str(ROOT)})

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            cut = asyncio.create_task(talk.chat.ask("stream 2000 0.02", within=60))
            await eventually(lambda: talk.tokens > 3, 20, "it streams")
            kept: list[asyncio.Task[Reply]] = []
            hello = talk.chat._introduce

            async def speak_first() -> None:
                kept.append(asyncio.create_task(talk.chat.ask()))
                await asyncio.sleep(0.2)
                await hello()

            talk.chat._introduce = speak_first  # type: ignore[method-assign]
            site.home(talk).kill9()
            await eventually(lambda: kept, 20, "the client is back")
            assert talk.check(await kept[0]).fields["client"] == "made-anew"
            await eventually(lambda: talk.chat.ready, 20, "it has said hello")
            assert talk.notices == 1
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("store", "unknown", "reason"),
    [
        ("sqlite:///{folder}/sessions.db", "", ""),
        ("sqlite:///proc/none/sessions.db", "", "No such file or directory"),
        ("redis://127.0.0.1:9", "", "Connect call failed"),
        ("nothing", "", "the store must be"),
        ("sqlite:///{folder}/sessions.db", "3.0.0", "Chainlit 3.0.0 is not known, only 2.x is"),
    ],
)
def test_a_replica_tells_whether_it_shares(tmp_path: Path, store: str, unknown: str, reason: str) -> None:
    """A file in its state folder says so, with the reason why not; the app runs all the same."""
    told = json.dumps({"store": store.format(folder=tmp_path)})
    launcher = ["-c", OTHER_RELEASE, str(LAUNCHER)] if unknown else [str(LAUNCHER)]
    command = [sys.executable, "-P", *launcher, "--state", "state", "run", "app.py"]
    instance = Instance("a", tmp_path, "", command=command, env={SHARING: told})
    instance.launch()
    try:
        instance.wait_ready()
        status = json.loads((instance.root / "state" / "sharing").read_text())
    finally:
        instance.kill9()
    assert status["shared"] is not bool(reason)
    assert reason in status.get("reason", "")
