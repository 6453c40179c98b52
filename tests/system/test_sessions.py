"""A conversation outlives its instance: replicas of `run`, which share their sessions by themselves."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Clients, each
from tests.support.link import KINDS, Driver, Kind, Transports
from tests.support.processes import alive
from tests.support.sharing import START, Conversation, RunSharing, ending
from tests.support.size import in_full
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

CONVERSATIONS = 50
PAGE = Kind(Driver.PYTHON, Transports.BOTH)
MakeRun = Callable[..., RunSharing]


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """Starts the command; it and its replicas end with the test."""
    with ending() as made:

        def make(replicas: int = 2, env: dict[str, str] | None = None, **sections: Any) -> RunSharing:
            made.append(RunSharing(tmp_path, replicas, env, **sections))
            made[-1].start()
            return made[-1]

        yield make


async def opened(clients: Clients, count: int = 1) -> list[Conversation]:
    """Conversations of all kinds of clients, or of one page."""
    kinds = [PAGE] if count == 1 else islice(cycle(KINDS), count)
    found = [Conversation(await clients.chat(kind)) for kind in kinds]
    await each([c.chat for c in found], lambda chat: next(c for c in found if c.chat is chat).open())
    return found


async def all_of(conversations: list[Conversation], work: Callable[[Conversation], Any]) -> None:
    """Does the work for every conversation, a few at a time; tells of all that failed."""
    of = {id(conversation.chat): conversation for conversation in conversations}
    await each([c.chat for c in conversations], lambda chat: work(of[id(chat)]))


def test_fifty_conversations_survive_a_kill(make_run: MakeRun) -> None:
    """Between turns nothing is lost; inside one, that turn only, and its user is told once."""
    run = make_run(3)

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            chats = await opened(clients, CONVERSATIONS)
            await all_of(chats, lambda c: c.turn())
            await all_of(chats, lambda c: c.turn("stream 5"))
            homes = Counter(c.chat.home for c in chats)
            victim = homes.most_common(1)[0][0]
            there = [c for c in chats if c.chat.home == victim]
            busy = there[1::2]
            streaming = [asyncio.Event() for _ in busy]
            cuts = [asyncio.create_task(c.cut(event)) for c, event in zip(busy, streaming, strict=True)]
            for event in streaming:
                await event.wait()
            await run.kill(str(victim))
            await asyncio.gather(*cuts)
            await all_of(chats, lambda c: c.turn())
            await all_of(chats, lambda c: c.turn("stream 5"))
            assert len(there) >= CONVERSATIONS // 6
            assert {c.notices for c in busy} == {1}
            assert {c.notices for c in chats if c not in busy} == {0}
            assert victim not in {c.last.instance for c in there if c.last}
            for c in chats:
                c.check_starts(run.journal)
                assert c.chat.losses == 0, "a client has noticed something"
                assert c in there or c.chat.connects == 1, "a session elsewhere was disturbed"

    asyncio.run(scenario())


@in_full
def test_a_rolling_restart_of_all_instances_loses_nothing(make_run: MakeRun) -> None:
    """Every replica is stopped in order and started again; each conversation remembers all of it."""
    run = make_run(2)

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            chats = await opened(clients, 12)
            await all_of(chats, lambda c: c.turn())
            for name, pid in run.pids().items():
                os.kill(pid, signal.SIGTERM)
                await all_of(chats, lambda c: c.turn())
                assert name not in {c.last.instance for c in chats if c.last}
                gone = pid
                await eventually(
                    lambda gone=gone: not alive(gone) and run.all_healthy(),  # type: ignore[misc]
                    START,
                    "a new replica",
                )
            await all_of(chats, lambda c: c.turn())
            assert sum(c.notices for c in chats) == 0
            for c in chats:
                c.check_starts(run.journal)
                assert c.chat.losses == 0, "a client has noticed something"

    asyncio.run(scenario())


async def kill_home(run: RunSharing, conversation: Conversation) -> None:
    """Kills the instance of the last answer."""
    assert conversation.last
    await run.kill(conversation.last.instance)


def test_settings_profile_files_and_buttons_come_along(make_run: MakeRun) -> None:
    """All that a session has is there: what the user chose, uploaded and pressed, and what the app sent."""
    run = make_run(2, env={"PROFILES": "1"})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            (talk,) = await opened(clients)
            key = await talk.chat.upload("my notes")
            await talk.turn(files=(key,))
            await talk.chat.link.emit("chat_settings_change", {"level": "high"})
            await talk.turn()
            pressed = await talk.chat.action()
            talk.turns = pressed.n
            greeted = talk.chat.home
            await kill_home(run, talk)
            reply = await talk.turn("elements")
            assert reply.fields["setting"] == "high"
            assert reply.fields["files"] == "greeting.txt+up.txt"
            assert "notes" in talk.outputs[-1]
            assert await talk.chat.fetch() == f"greeting of {greeted}"
            again = await talk.turn(files=(key,))
            assert again.fields["read"] == "my"
            talk.check_starts(run.journal)

    asyncio.run(scenario())


def test_what_cannot_be_stored_is_left_out_with_one_warning(make_run: MakeRun) -> None:
    """A lock in `cl.user_session` costs the lock; the log names its key once."""
    run = make_run(2)

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            (talk,) = await opened(clients)
            for _ in range(3):
                assert (await talk.turn("lock")).fields["lock"] == "there"
            await kill_home(run, talk)
            assert (await talk.turn()).fields["lock"] == "none"
            warnings = [line for line in run.log.read_text().splitlines() if "['lock']" in line]
            assert len(warnings) == 1, warnings

    asyncio.run(scenario())


def test_an_app_stores_its_own_types_and_makes_the_rest_anew(make_run: MakeRun) -> None:
    """`register_codec` and `on_restore`, imported as the app would, work in a replica of `run`."""
    run = make_run(2, env={"CODEC": "1"})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            (talk,) = await opened(clients)
            before = await talk.turn()
            assert (before.fields["tally"], before.fields["client"]) == ("7", "none")
            await kill_home(run, talk)
            after = await talk.turn()
            assert (after.fields["tally"], after.fields["client"]) == ("7", "made-anew")

    asyncio.run(scenario())


def test_a_turn_is_given_again_where_that_is_wanted(make_run: MakeRun) -> None:
    """With `sessions.retry_turn` the answer comes without being asked again, once."""
    run = make_run(2, sessions={"retry_turn": True, "notice": "The answer was cut off. One moment."})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            asking = asyncio.create_task(talk.chat.ask("stream 60 0.05", within=40))
            await eventually(lambda: talk.tokens > 5, 20, "it streams")
            await kill_home(run, talk)
            reply = talk.check(await asking)
            assert reply.instance in run.pids()
            assert talk.notices == 1
            await talk.turn()

    asyncio.run(scenario())


def test_a_beginning_that_was_cut_off_begins_anew(make_run: MakeRun) -> None:
    """A kill inside `on_chat_start` leaves no half-made session: it runs again, and only then counts."""
    run = make_run(2, env={"SLOW_START": "2"})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            talk = Conversation(await clients.chat(PAGE))
            opening = asyncio.create_task(talk.open())
            starts = await eventually(lambda: run.journal.starts(talk.chat.session), 20, "the start")
            os.kill(run.pids()[starts[0]], signal.SIGKILL)
            await opening
            await talk.turn()
            assert len(run.journal.starts(talk.chat.session)) == 2
            assert talk.notices == 0

    asyncio.run(scenario())


def test_sharing_can_be_off(make_run: MakeRun) -> None:
    """With `sessions.shared: false` a kill is what it is in plain Chainlit: the chat starts anew."""
    run = make_run(2, sessions={"shared": False})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            (talk,) = await opened(clients)
            await talk.turn()
            await kill_home(run, talk)
            await talk.back(1)
            assert (await talk.chat.ask()).n == 1
            await eventually(lambda: len(talk.chat.greetings) == 2, 20, "a second greeting")

    asyncio.run(scenario())
