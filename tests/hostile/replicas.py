"""What goes wrong with instances whose sessions are shared: one action each, which also mends it.

Whoever was there loses the turn that was under way, is told so, and goes on elsewhere with all that was
finished.
"""

import asyncio
import signal
import time
from random import Random

from tests.hostile.chats import PATIENCE
from tests.hostile.shared import Action, SharedSite
from tests.hostile.talks import Talk
from tests.support.chat import Chat
from tests.support.journal import Entry
from tests.support.link import KINDS

ENDS = 40.0  # seconds that an instance takes to end in order


def chosen(site: SharedSite, chance: Random) -> str:
    """The instance that it is done to: one that has conversations."""
    homes = {talk.home for talk in site.talks.talks}
    name = chance.choice([name for name in site.instances if site.home(name) in homes])
    harm(site, name)
    return name


def harm(site: SharedSite, name: str) -> None:
    """Its chats may notice that it is gone."""
    site.tell(f"      harms {name}, {site.home(name)}")
    site.talks.harms(site.home(name))


async def is_killed(site: SharedSite, chance: Random) -> None:
    """Ends at once, and comes back."""
    name = chosen(site, chance)
    site.instances[name].kill9()
    await site.talks.settled()
    await site.heal()


async def is_ended(site: SharedSite, chance: Random) -> None:
    """Ends in order, and comes back."""
    name = chosen(site, chance)
    site.instances[name].send(signal.SIGTERM)
    await site.until(lambda: not site.instances[name].running, f"{name} ends", ENDS)
    await site.talks.settled()
    await site.heal()


async def are_killed(site: SharedSite, chance: Random) -> None:
    """All of them end at once: what they knew is in the store."""
    for name in site.instances:
        harm(site, name)
        site.instances[name].kill9()
    await site.heal()
    await site.talks.settled()


async def freezes(site: SharedSite, chance: Random) -> None:
    """Stands still until others have its sessions, and wakes up: it does nothing more in any of them."""
    name = chosen(site, chance)
    await _freeze(site, name)


async def _freeze(site: SharedSite, name: str) -> None:
    instance, home = site.instances[name], site.home(name)
    there = {talk.chat.session for talk in site.talks.talks if talk.home == home}
    instance.pause()
    try:
        await site.judged(name, "down")
        await site.talks.settled()
    finally:
        woken = time.time()
        instance.resume()
    await site.healthy()
    await site.talks.settled()
    if site.talks.may_forget:  # nobody could tell it
        return
    late = [
        entry
        for entry in site.journal.entries(kind="message")
        if entry.instance == home and entry.t > woken and entry.session in there
    ]
    assert not late, f"{name} woke up and answered sessions that others have: {late[:3]}"


async def _met(site: SharedSite, chance: Random) -> tuple[Chat, Entry, asyncio.Task[None]]:
    """A newcomer whose `on_chat_start` has begun and not ended, where that is, and the opening."""
    chat = await site.talks.clients.chat(chance.choice(KINDS))
    opening = asyncio.create_task(chat.open(PATIENCE))
    starts = await site.until(lambda: site.journal.entries(chat.session, "start"), "on_chat_start")
    return chat, starts[0], opening


async def _goes_on(site: SharedSite, chat: Chat, opening: asyncio.Task[None], chance: Random) -> None:
    await opening
    talk = Talk(chat, chance)
    for _ in range(3):
        await talk.use()
    assert len(chat.greetings) == 1, f"{chat} was greeted by {chat.greetings}"
    await site.talks.clients.close(chat)


async def dies_in_a_beginning(site: SharedSite, chance: Random) -> None:
    """Is killed inside `on_chat_start`, which runs elsewhere from its beginning."""
    chat, start, opening = await _met(site, chance)
    name = site.name(start.instance)
    harm(site, name)
    site.instances[name].kill9()
    await _goes_on(site, chat, opening, chance)
    await site.talks.settled()
    await site.heal()


async def freezes_in_a_beginning(site: SharedSite, chance: Random) -> None:
    """Stands still inside `on_chat_start`: who greets and answers afterwards is the other one alone."""
    chat, start, opening = await _met(site, chance)
    name = site.name(start.instance)
    harm(site, name)
    going_on = asyncio.create_task(_goes_on(site, chat, opening, chance))
    try:
        await _freeze(site, name)
    finally:
        await going_on


# These do all that the others do, and sooner: one that ends in order waits for polls of those who have left.
WHOLE: list[Action] = [dies_in_a_beginning, freezes_in_a_beginning, are_killed]
ACTIONS: list[Action] = [*WHOLE, is_killed, is_ended, freezes]
