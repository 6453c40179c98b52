"""Where a session cannot be handed over, or is not to be, its client connects anew as ever."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.sessions.machine import MOST_TAKEN
from tests.support.clients import Clients
from tests.support.link import COOKIE_KINDS
from tests.support.sharing import RunSharing, ending
from tests.support.talks import Talk, most_used, talks_of, together
from tests.support.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MakeRun = Callable[..., RunSharing]
# What makes of an app one that ends when it restores a session that has said `arm`; but not before a second
# in which its loop was never late. So a busy machine has restored the others, who would be suspected too.
DEADLY = """
from chainlit_proxy import on_restore

@on_restore
async def die():
    if cl.user_session.get("deadly"):
        loop, calm, end = asyncio.get_running_loop(), 0, time.monotonic() + 8
        while calm < 50 and time.monotonic() < end:
            due = loop.time() + 0.02
            await asyncio.sleep(0.02)
            calm = calm + 1 if loop.time() < due + 0.03 else 0
        os.kill(os.getpid(), 9)

async def arm(nonce, n, argument, incoming):
    cl.user_session.set("deadly", True)
    await say(nonce, n, argument, incoming)

COMMANDS["arm"] = arm
"""
# What makes of an app one whose instances cannot read the state of those before it.
NEWER = """
for name, module in list(sys.modules.items()):
    if name.endswith(".state") and hasattr(module, "Unreadable"):
        module.VERSION = 1000
"""


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    """Starts two replicas with these sections, of the app with more lines; they end with the test."""
    with ending() as made:

        def make(app: str = "", **sections: Any) -> RunSharing:
            made.append(RunSharing(tmp_path, 2, **sections))
            with (made[-1].folder / "app.py").open("a") as file:
                file.write(app)
            made[-1].start()
            return made[-1]

        yield make


async def killed(run: RunSharing, talks: list[Talk]) -> list[Talk]:
    """The sessions whose instance was killed, all of which have connected anew."""
    victim = most_used(talks)
    there = [talk for talk in talks if talk.at == victim]
    os.kill(run.pids()[victim], signal.SIGKILL)
    await together(talk.chat.back(1) for talk in there)
    return there


def test_never_means_never(make_run: MakeRun) -> None:
    """Each client of the killed instance connects anew, once, and its conversation goes on."""
    run = make_run(affinity={"hand_over": "never"})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            talks = await talks_of(clients, COOKIE_KINDS)
            there = await killed(run, talks)
            await together(talk.turn() for talk in talks)
            assert {(talk.chat.connects, talk.chat.losses) for talk in there} == {(2, 1)}
            assert {talk.chat.losses for talk in talks if talk not in there} == {0}
            assert handed_over(run) == 0

    asyncio.run(scenario())


def test_instances_that_share_nothing(make_run: MakeRun) -> None:
    """Told to try always, the proxy finds that nobody holds anything: each client connects anew, once."""
    run = make_run(sessions={"shared": False}, affinity={"hand_over": "always"})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            talks = await talks_of(clients, COOKIE_KINDS)
            there = await killed(run, talks)
            await together(begun_anew(talk) for talk in there)
            assert {(talk.chat.connects, talk.chat.losses) for talk in there} == {(2, 1)}
            assert {talk.chat.losses for talk in talks if talk not in there} == {0}
            assert handed_over(run, result="no_hooks") == len(there)
            await eventually(
                lambda: f"{len(there)} sessions had to connect anew" in run.tail(400), 10, "told"
            )

    asyncio.run(scenario())


def test_a_version_that_cannot_read_what_was_stored(make_run: MakeRun) -> None:
    """In a rollout, to an instance to which the old state means nothing: each client connects anew, once."""
    run = make_run()

    async def scenario() -> None:
        app = run.folder / "app.py"
        app.write_text(app.read_text() + NEWER)
        async with Clients(run.url) as clients:
            talks = await talks_of(clients, COOKIE_KINDS)
            run.post("/api/rollout", {"timeout": 30})
            await eventually(lambda: run.rollout()["state"] != "running", 60, "the rollout ends")
            assert run.rollout()["state"] == "done", run.rollout()
            await together(begun_anew(talk) for talk in talks)
            assert {talk.chat.losses for talk in talks} == {1}
            assert handed_over(run, result="refused") == len(talks)
            log = run.log.read_text()
            assert "sessions had to connect anew" in log
            assert "a session cannot be restored" in log

    asyncio.run(scenario())


def test_a_session_that_ends_whoever_restores_it(make_run: MakeRun) -> None:
    """It costs four instances, not one after the other for ever; all other conversations go on."""
    run = make_run(app=DEADLY, affinity={"hold": 19})

    async def scenario() -> None:
        async with Clients(run.url) as clients:
            talks = await talks_of(clients, COOKIE_KINDS)
            deadly = talks[0]
            await deadly.turn("arm")
            os.kill(run.pids()[deadly.at], signal.SIGKILL)
            await begun_anew(deadly)
            ended = run.log.read_text().count("was killed by SIGKILL\n")
            assert ended == 2 * (1 + MOST_TAKEN), run.tail(200)  # each is told of twice
            await together(goes_on(talk) for talk in talks[1:])

    asyncio.run(scenario())


async def goes_on(talk: Talk) -> None:
    """Its client may connect anew meanwhile; it is answered by who knows what was said before."""
    reply = await talk.chat.insist(60)
    assert reply.n > talk.turns, f"{talk}: n={reply.n}: {talk.chat.story()}"


async def begun_anew(talk: Talk) -> None:
    """Its client was greeted once more, where it connected anew, and is answered there."""
    await eventually(lambda: len(talk.chat.greetings) == 2, 60, lambda: f"{talk}: {talk.chat.story()}")
    reply = await talk.chat.ask()
    assert (reply.n, reply.instance) == (1, talk.chat.home)


def handed_over(run: RunSharing, **labels: str) -> float:
    """How many sessions were, or were not for this reason."""
    return run.metric("chainlit_proxy_hand_overs_total", **labels)
