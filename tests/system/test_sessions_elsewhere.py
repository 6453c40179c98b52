"""Instances that `chainlit-proxy replica` or a line in the app starts, which share through a real Redis."""

import asyncio
import sys
import urllib.request
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sessions.conftest import redis_server
from tests.support.clients import Clients, each
from tests.support.journal import Journal
from tests.support.link import KINDS, Driver, Kind, Transports
from tests.support.processes import free_port
from tests.support.proxy_process import COMMAND, ROOT, ProxyProcess, config_for
from tests.support.redis_server import RedisServer
from tests.support.sharing import PLAIN_RUN, Conversation, Instance
from tests.support.size import in_full
from tests.support.waiting import eventually

__all__ = ["redis_server"]
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PAGE = Kind(Driver.PYTHON, Transports.BOTH)
CONVERSATIONS = 50


class Site:
    """Instances and the proxy before them; owned by the fixture."""

    def __init__(self, folder: Path, instances: list[Instance], **sections: Any) -> None:
        """`sections` replace those of the proxy's configuration."""
        self.instances = {instance.name: instance for instance in instances}
        self.journal = Journal(folder / "journal.jsonl")
        for instance in instances:
            instance.launch()
        for instance in instances:
            instance.wait_ready()
        health = {"interval": 0.5, "timeout": 1, "fall": 2, "rise": 1, "evict_after": 2}
        sections = {"health": health, "log": {"access": False}} | sections
        self.proxy = ProxyProcess(config_for(instances, **sections), folder)  # type: ignore[arg-type]
        self.proxy.start()
        self.url = self.proxy.url

    def home(self, conversation: Conversation) -> Instance:
        """The instance of the last answer."""
        assert conversation.last
        pid = int(conversation.last.instance.removeprefix("pid"))
        return next(
            instance for instance in self.instances.values() if instance.running and instance.pid == pid
        )

    def heal(self) -> None:
        """Starts whatever has ended."""
        for instance in self.instances.values():
            if not instance.running:
                instance.launch()
        for instance in self.instances.values():
            instance.wait_ready()
        self.proxy.wait_health(dict.fromkeys(self.instances, "healthy"))

    def end(self) -> None:
        """Ends everything and shows the logs."""
        for process in [self.proxy, *self.instances.values()]:
            process.resume()
            process.kill9()
            print(process.tail(60))


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    """Makes a site of instances; `make_site(store, command=..., env=..., names=..., sessions={...})`."""
    made: list[Site] = []

    def make(
        store: str,
        names: str = "ab",
        command: list[str] | None = None,
        env: Callable[[str], dict[str, str]] = lambda _: {},
        **sections: Any,
    ) -> Site:
        instances = [Instance(name, tmp_path, store, command=command, env=env(name)) for name in names]
        made.append(Site(tmp_path, instances, **sections))
        return made[-1]

    yield make
    for site in made:
        site.end()


async def opened(clients: Clients, count: int = 1) -> list[Conversation]:
    """Conversations of all kinds of clients, or of one page."""
    kinds = [PAGE] if count == 1 else islice(cycle(KINDS), count)
    found = {(chat := await clients.chat(kind)): Conversation(chat) for kind in kinds}
    await each(found, lambda chat: found[chat].open())
    return list(found.values())


async def kill_home(site: Site, conversation: Conversation) -> None:
    """Kills the instance of the last answer and waits until the client is connected again."""
    before = conversation.chat.connects
    site.home(conversation).kill9()
    await conversation.back(before)


def test_fifty_conversations_survive_a_kill(make_site: MakeSite, redis_server: RedisServer) -> None:
    """As with `run`: between turns nothing is lost, inside one that turn only."""
    site = make_site(redis_server.url)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            chats = {c.chat: c for c in await opened(clients, CONVERSATIONS)}
            await each(chats, lambda chat: chats[chat].turn())
            there = [c for c in chats.values() if site.home(c).name == "a"]
            idle, busy = there[::2], there[1::2]
            before = {c.chat: c.chat.connects for c in idle}
            begun = [asyncio.Event() for _ in busy]
            cuts = [asyncio.create_task(c.cut(event)) for c, event in zip(busy, begun, strict=True)]
            for event in begun:
                await event.wait()
            site.instances["a"].kill9()
            await asyncio.gather(*cuts)
            await each(before, lambda chat: chats[chat].back(before[chat]))
            await each(chats, lambda chat: chats[chat].turn())
            assert len(there) >= CONVERSATIONS // 5
            assert {c.notices for c in busy} == {1}
            assert sum(c.notices for c in chats.values()) == len(busy)
            for c in chats.values():
                c.check_starts(site.journal)

    asyncio.run(scenario())


def test_files_go_through_the_store_up_to_a_limit(
    make_site: MakeSite, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Without a folder that all reach, Redis keeps uploads; one that is too large is missing, no more."""
    file = tmp_path / "sessions.yaml"
    file.write_text(yaml.safe_dump({"sessions": {"store": redis_server.url, "file_limit": 100}}))
    site = make_site("", command=[*COMMAND, "replica", "app.py", "-c", str(file), "--"])

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            key = await talk.chat.upload("small")
            large = await talk.chat.upload("x" * 101)
            await talk.turn(files=(key, large))
            await kill_home(site, talk)
            reply = await talk.turn(files=(key,))
            assert reply.fields["read"] == "small"
            assert reply.fields["files"].count("up.txt") == 1

    asyncio.run(scenario())


def test_a_store_that_stops_and_comes_back(make_site: MakeSite, tmp_path: Path) -> None:
    """While Redis is gone, or hangs, chats go on and a metric says so; afterwards all is shared again."""
    redis = RedisServer(tmp_path)
    redis.start()
    ports = {name: free_port() for name in "ab"}
    site = make_site(redis.url, env=lambda name: {"METRICS": str(ports[name])})

    def up(instance: Instance) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[instance.name]}/metrics", timeout=5) as answer:
            return "chainlit_proxy_session_store_up 1.0" in answer.read().decode()

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            home = site.home(talk)
            for stop, start in ((redis.kill9, redis.start), (redis.pause, redis.resume)):
                assert up(home)
                stop()
                await talk.turn()
                await eventually(lambda: not up(home), 10, "the metric says that the store is down")
                for _ in range(3):
                    await talk.turn(within=3)
                newcomer = Conversation(await clients.chat(PAGE))
                await newcomer.open()
                await newcomer.turn()
                start()
                await eventually(lambda: all(map(up, site.instances.values())), 15, "the store is back")
                await talk.turn()
            await asyncio.sleep(0.5)
            await kill_home(site, talk)
            await talk.turn()
            talk.check_starts(site.journal)

    try:
        asyncio.run(scenario())
    finally:
        redis.resume()
        redis.kill9()


def test_another_login_gets_another_session(make_site: MakeSite, redis_server: RedisServer) -> None:
    """Who names a session of somebody else's begins a new one; its owner finds all of it afterwards."""
    secret = "s" * 40
    site = make_site(
        redis_server.url, names="abc", env=lambda _: {"LOGIN": "1", "CHAINLIT_AUTH_SECRET": secret}
    )

    async def as_user(clients: Clients, name: str, session: str | None = None) -> Conversation:
        talk = Conversation(await clients.chat(PAGE))
        talk.chat.session = session or talk.chat.session
        talk.chat.link._http.headers["x-user"] = name  # type: ignore[attr-defined]
        await talk.chat.http("POST", "/auth/header")
        await talk.open()
        return talk

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            ada = await as_user(clients, "ada")
            assert (await ada.turn()).fields["user"] == "ada"
            home = site.home(ada)
            await ada.chat.link.close()
            home.kill9()
            eve = await as_user(clients, "eve", ada.chat.session)
            reply = await eve.chat.ask()
            assert len(eve.chat.greetings) == 1
            assert (reply.n, reply.fields["first"], reply.fields["user"]) == (1, reply.nonce, "eve")
            assert reply.fields["thread"] != ada.last.fields["thread"] if ada.last else False
            taken = next(i for i in site.instances.values() if i.running and f"pid{i.pid}" == reply.instance)
            await eve.chat.link.close()
            taken.kill9()
            again = Conversation(await clients.chat(PAGE))
            again.chat.session = ada.chat.session
            again.chat.link._http.headers["x-user"] = "ada"  # type: ignore[attr-defined]
            await again.chat.http("POST", "/auth/header")
            await again.chat.link.open(
                {"clientType": "webapp", "sessionId": again.chat.session, "threadId": "", "userEnv": "{}"}
            )
            await eventually(lambda: again.chat.ready, 20, "ada is back")
            reply = await again.chat.ask()
            assert (reply.n, reply.fields["user"]) == (2, "ada")

    asyncio.run(scenario())


@in_full
def test_an_instance_that_was_away_does_not_write_its_old_copy(
    make_site: MakeSite, redis_server: RedisServer
) -> None:
    """Frozen in a turn and given up, then running again: what happened elsewhere meanwhile stays."""
    site = make_site(redis_server.url, names="abc")

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            frozen = site.home(talk)
            before = talk.chat.connects
            asking = asyncio.create_task(talk.chat.ask("stream 200 0.02", within=60))
            await eventually(lambda: talk.tokens > 3, 20, "it streams")
            frozen.pause()
            await talk.chat.back(before, within=60)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await talk.turn()
            assert talk.notices == 1
            frozen.resume()
            await eventually(lambda: "its copy here has ended" in frozen.tail(200), 20, "the copy ends")
            await talk.turn()
            await asyncio.sleep(0.5)
            await kill_home(site, talk)
            await talk.turn()
            assert talk.notices == 1

    asyncio.run(scenario())


def test_one_line_in_the_app_is_enough(make_site: MakeSite, redis_server: RedisServer) -> None:
    """Under plain `chainlit run`, `share` at the top of the app does all of it."""
    environment = {"SHARE": redis_server.url, "SHARE_FROM": str(ROOT)}
    site = make_site("", command=PLAIN_RUN, env=lambda _: environment)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            await kill_home(site, talk)
            await talk.turn()
            talk.check_starts(site.journal)

    asyncio.run(scenario())


def test_a_chainlit_that_nobody_knows_runs_unshared(make_site: MakeSite, redis_server: RedisServer) -> None:
    """A handler that is missing is told in one line; the app works as it would without sharing."""
    environment = {"SHARE": redis_server.url, "SHARE_FROM": str(ROOT), "UNKNOWN": "edit_message"}
    site = make_site("", command=PLAIN_RUN, env=lambda _: environment)

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            await talk.turn()
            lines = [line for line in site.instances["a"].tail(200).splitlines() if "chainlit_proxy" in line]
            assert len(lines) == 1
            assert lines[0].endswith("handles no edit_message")

    asyncio.run(scenario())


def test_a_thread_goes_on_as_the_same_thread(make_site: MakeSite, redis_server: RedisServer) -> None:
    """With a data layer and a login, messages after the kill are written to the thread of those before."""
    secret = "s" * 40
    site = make_site(
        redis_server.url, env=lambda _: {"LOGIN": "1", "DATA": "1", "CHAINLIT_AUTH_SECRET": secret}
    )

    async def scenario() -> None:
        async with Clients(site.url) as clients:
            talk = Conversation(await clients.chat(PAGE))
            talk.chat.link._http.headers["x-user"] = "ada"  # type: ignore[attr-defined]
            await talk.chat.http("POST", "/auth/header")
            await talk.open()
            await talk.turn()
            await kill_home(site, talk)
            reply = await talk.turn()
            steps = [entry for entry in site.journal.entries(kind="step") if entry.instance == reply.instance]
            thread = reply.fields["thread"]
            await eventually(lambda: site.journal.entries(kind="step"), 5, "steps")
            assert {step.details["thread"] for step in steps} == {thread}
            assert len(steps) >= 2
            assert not site.journal.entries(kind="resume")

    asyncio.run(scenario())


def test_a_store_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    """`replica` without a store, or with one of no known kind, ends with one line and code 2."""
    for name, options, word in (("none", [], "--sessions"), ("bad", ["--sessions", "x:y"], "store")):
        command = [sys.executable, "-m", "proxy", "replica", "app.py", *options, "--"]
        instance = Instance(name, tmp_path, "", command=command)
        instance.launch()
        assert instance.wait() == 2
        assert word in instance.tail()
        assert "Traceback" not in instance.tail()
