"""Messages that wait for their turn in instances of the real Chainlit: `python answers_lab.py STORE`.

Prints the answers of all scenarios as JSON by their names; a scenario that fails answers with its trace.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, attr-defined"
# Chainlit claims to be typed, but some of its methods are not.

import asyncio
import sys
from typing import Any

from proxy.sessions import SharingSettings
from tests.support.hand_over_stage import MEMORY, Instance, Wire, message, play
from tests.support.waiting import eventually


def instance(**named: Any) -> Instance:
    """One more, which is on the stage and answers one message at once."""
    return Instance(SharingSettings(sys.argv[1]).open()[0], most_answers=1, **named)


async def pages(count: int) -> list[Wire]:
    """So many that begin a chat."""
    return [await (await Wire.open()).begin() for _ in range(count)]


async def busy(count: int, **named: Any) -> tuple[Instance, list[Wire]]:
    """The first page is being answered, the others have said something, one after the other, and wait."""
    a, wires = instance(**named), await pages(count)
    await wires[0].event("client_message", message("wait 0"))
    await eventually(lambda: a.called, 10, "the first one is answered")
    for number, wire in enumerate(wires[1:], 1):
        await wire.event("client_message", message(str(number)))
        await eventually(wire.shown, 10, "it is told")
    return a, wires


def story(wire: Wire) -> list[str]:
    """What a page shows of it, in order."""
    kinds = {"new_message": "", "update_message": "now ", "delete_message": "no more"}
    told = [event for event in wire.events() if event[0] in kinds and event[1].get("type") != "run"]
    return [kinds[name] + (step["output"] if name != "delete_message" else "") for name, step in told]


async def in_order() -> Any:
    """Three that ask at once."""
    a, wires = await busy(3)
    a.gate.set()
    for number, wire in enumerate(wires[1:], 1):
        await wire.answered(str(number))
    ids = {
        step["id"]
        for name, step in wires[2].events()
        if name in {"new_message", "update_message", "delete_message"}
        and step.get("type") == "system_message"
    }
    counted = [a.counts.answers, a.counts.queue_waiting, a.counts.queue_admitted]
    return [a.called, [story(wire) for wire in wires], len(ids), counted]


async def kept_out_of_the_chat() -> Any:
    """What the app and the store have of it."""
    a, wires = await busy(2)
    contexts = MEMORY[3]
    while_it_waits = [each.content for each in contexts[wires[1].session]]
    a.gate.set()
    await wires[1].answered("1")
    return [while_it_waits, [each.content for each in contexts[wires[1].session]]]


async def stopped() -> Any:
    """The user of the first that waits says stop."""
    a, wires = await busy(3)
    await wires[1].event("stop")
    await eventually(lambda: "no more" in story(wires[1]), 10, "it is told")
    a.gate.set()
    await wires[2].answered("2")
    return [a.called, story(wires[1]), a.counts.queue_given_up, a.counts.answers]


async def disconnected() -> Any:
    """A page is lost while its message waits, and comes back."""
    a, wires = await busy(2)
    await wires[1].close()
    again = await Wire.open(wires[1].session)
    await again.connect()
    a.gate.set()
    await again.answered("1")
    return [a.called, story(again)]


async def taken_over() -> Any:
    """The instance is gone while a message waits; its client is handed over."""
    a, wires = await busy(2)
    await asyncio.sleep(0.2)
    await a.die()
    b, again = instance(), await Wire.open(wires[1].session)
    resumed = await again.resumes()
    await again.answered("1")
    gone = [step["id"] for name, step in again.events() if name == "delete_message"]
    told = [step["id"] for name, step in wires[1].events() if step.get("type") == "system_message"]
    return [resumed, a.called, b.called, story(again), gone[:1] == told[:1]]


async def too_many() -> Any:
    """One more than may wait."""
    a, wires = await busy(3, most_waiting=1)
    a.gate.set()
    await wires[1].answered("1")
    await wires[2].turn("again")
    return [a.called, story(wires[2]), a.counts.queue_turned_away]


async def edited() -> Any:
    """A message that is changed is answered anew, in its turn."""
    a, wires = await busy(1)
    other = (await pages(1))[0]
    a.gate.set()
    said = await other.turn("one")
    a.gate.clear()
    await wires[0].event("client_message", message("wait more"))
    await eventually(lambda: "wait more" in a.called, 10, "it is answered")
    said["message"]["output"] = "two"
    editing = asyncio.create_task(other.event("edit_message", said))
    await eventually(lambda: any("number 1" in text for text in other.shown()), 10, "it is told")
    a.gate.set()
    await editing
    await other.answered("two")
    return a.called


if __name__ == "__main__":
    scenarios = [in_order, kept_out_of_the_chat, stopped, disconnected, taken_over, too_many, edited]
    asyncio.run(play(scenarios))
