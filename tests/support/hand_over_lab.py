"""Clients that are handed over to instances of the real Chainlit: `python hand_over_lab.py STORE`.

Prints the answers of all scenarios as JSON by their names; a scenario that fails answers with its trace.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, attr-defined"
# Chainlit claims to be typed, but some of its methods are not.

import asyncio
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from proxy.sessions import SharingSettings, hooks
from proxy.sessions import sharing as module
from proxy.sessions.store import Write
from tests.support.hand_over_stage import MEMORY, OURS, Instance, Wire, message, play, sio
from tests.support.waiting import eventually

module.FIRST_RETRY = module.LAST_RETRY = 0.02


def store() -> Any:
    """One more instance's view of the store."""
    return SharingSettings(sys.argv[1]).open()[0]


def instance(**named: Any) -> Instance:
    """One more, which is on the stage."""
    return Instance(store(), **named)


async def goes_on() -> Any:
    """A page whose instance died between two turns."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.die()
    b, again = instance(), await Wire.open(page.session)
    accepted = await again.joins()
    resumed = await again.asks(0, "resume", {"streaming": "streamed"})
    events = again.events()
    await again.event("connection_successful")
    await again.turn("two")
    return [
        accepted,
        resumed,
        events,
        again.names().count("clear_ask"),
        again.shown(),
        b.begun,
        b.counts.hand_overs,
    ]


async def other_client() -> Any:
    """A client that is no page."""
    a, page = instance(), await (await Wire.open(client="teams")).begin()
    await page.turn("one")
    await a.die()
    instance()
    again = await Wire.open(page.session, "teams")
    return [await again.resumes("streamed"), again.names()]


async def streamed_whole() -> Any:
    """The end of what was streamed did not reach the page, and is in the store."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    name = next(e[1]["id"] for e in page.events() if e[0] == "new_message" and e[1]["output"] == "1 one")
    await a.die()
    instance()
    again = await Wire.open(page.session)
    resumed = await again.resumes(name)
    return [
        resumed,
        [[e[1]["output"], e[1]["streaming"]] for e in again.events() if e[0] == "update_message"],
    ]


async def dies_at(words: str, **named: Any) -> tuple[Instance, Wire, dict[str, Any]]:
    """An instance that died in its second turn, behind the write in which these words are."""
    a, page = instance(**named), await (await Wire.open()).begin()
    await page.turn("one")
    a.store.last_words = words
    await page.event("client_message", said := message("two"))
    await eventually(lambda: a.store.down, 10, "its last words")
    await a.die()
    return a, page, said


async def recorded_and_not_begun() -> Any:
    """The app was not called: it is at the next one, once."""
    a, page, said = await dies_at('"begun": false')
    b, again = instance(), await Wire.open(page.session)
    resumed = await again.resumes()
    answers = [await again.asks(n, "client_message", said) for n in (1, 2)]
    await again.answered("two")
    return [
        a.called,
        resumed,
        answers,
        b.called,
        again.shown(),
        b.counts.late_turns,
        b.counts.cut_turns,
        b.counts.known_again,
    ]


async def recorded_and_begun() -> Any:
    """The app was called: the user is told."""
    _, page, said = await dies_at('"begun": true')
    b, again = instance(), await Wire.open(page.session)
    resumed = await again.resumes()
    answer = await again.asks(1, "client_message", said)
    await again.turn("three")
    return [resumed, answer, b.called, again.shown(), b.counts.late_turns, b.counts.cut_turns]


async def begun_and_not_recorded() -> Any:
    """The app was called while the store was down: it is not called again, and the user is told."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.die()
    b, again, said = instance(), await Wire.open(page.session), message("two")
    resumed = await again.resumes()
    answers = [await again.asks(1, "client_message", said, True)]
    answers.append(await again.asks(2, "client_message", message("three"), "more"))
    await again.answered("three")
    return [resumed, answers, b.called, again.shown(), b.counts.cut_turns, b.counts.said_again]


async def retried() -> Any:
    """Where a turn is tried again, that is once only, however it ended."""
    _, page, said = await dies_at('"begun": true')
    b = instance(retry_turn=True)
    b.store.last_words = '"begun": true'
    second = await Wire.open(page.session)
    resumed = [await second.resumes()]
    await eventually(lambda: b.store.down, 10, "it died, too")
    await b.die()
    c, third = instance(retry_turn=True), await Wire.open(page.session)
    resumed.append(await third.resumes())
    return [resumed, second.shown(), c.called, third.shown(), await third.asks(1, "client_message", said)]


async def never_begun() -> Any:
    """A message that ends its instance before the app is called ends one more, and is told."""
    _, page, _ = await dies_at('"begun": false')
    b = instance()
    b.store.last_words = '"tries": 1'
    second = await Wire.open(page.session)
    resumed = [await second.resumes()]
    await b.die()
    c, third = instance(), await Wire.open(page.session)
    resumed.append(await third.resumes())
    return [resumed, b.called, c.called, second.shown(), third.shown()]


async def ordinary() -> Any:
    """A client that connects by itself, whose message was not begun."""
    _, page, _ = await dies_at('"begun": false')
    b, again = instance(), await Wire.open(page.session)
    await again.connect()
    await again.greet()
    await again.answered("two")
    return [b.called, again.shown(), b.counts.late_turns, b.counts.hand_overs]


async def before_hello() -> Any:
    """A new instance that dies before its client was told leaves the turn to the next."""
    _, page, _ = await dies_at('"begun": false')
    b, again = instance(), await Wire.open(page.session)
    await again.joins()
    await again.close()
    await b.die()
    c, last = instance(), await Wire.open(page.session)
    resumed = await last.resumes()
    await last.answered("two")
    return [resumed, b.called, c.called]


async def back_in_the_middle() -> Any:
    """A client that is lost while it is greeted, and comes back to the same instance by itself."""
    _, page, _ = await dies_at('"begun": false')
    b, again = instance(), await Wire.open(page.session)
    await again.joins()
    await again.event("resume", {"streaming": None}, space=OURS, ack=0)
    await eventually(lambda: b.begun == ["restoring"], 10, "it is greeted")
    await again.close()
    own = await Wire.open(page.session)
    await own.connect()
    await own.event("client_message", message("three"))
    await own.answered("two")
    await own.answered("three")
    return [b.begun, own.shown()]


async def not_recorded() -> Any:
    """Nobody has taken it: it is run, once."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.die()
    b, again, said = instance(), await Wire.open(page.session), message("two")
    resumed = await again.resumes()
    answers = [await again.asks(1, "client_message", said)]
    await again.answered("two")
    answers.append(await again.asks(2, "client_message", said))
    other = {**said, "message": {**said["message"], "output": "three, by the same id"}}
    answers.append(await again.asks(3, "client_message", other))
    await again.answered("id")
    return [resumed, answers, b.called, b.counts.said_again, b.counts.known_again]


async def finished() -> Any:
    """It was answered, and nobody knows whether the client has the answer."""
    a, page = instance(), await (await Wire.open()).begin()
    said = await page.turn("file")
    await a.die()
    b, again = instance(), await Wire.open(page.session)
    resumed = await again.resumes()
    answer = await again.asks(1, "client_message", said)
    elements = [event[1]["name"] for event in again.events() if event[0] == "element"]
    return [resumed, answer, b.called, again.shown(), elements]


async def edited() -> Any:
    """An edited message is run as the others are, and taken before its turn has ended."""
    a, page = instance(), await (await Wire.open()).begin()
    said = await page.turn("one")
    await a.die()
    b, again = instance(), await Wire.open(page.session)
    edit = {"message": {**said["message"], "output": "wait"}}
    resumed = await again.resumes()
    answers = [await again.asks(n, "edit_message", edit) for n in (1, 2)]
    await eventually(lambda: b.called, 10, "the app is called")
    ended = "task_end" in again.names()[again.names().index("task_start") :]
    b.gate.set()
    await again.answered("wait")
    return [resumed, answers, b.called, ended]


async def edit_not_begun() -> Any:
    """An edited message that was recorded only is run by the next one."""
    a, page = instance(), await (await Wire.open()).begin()
    said = await page.turn("one")
    a.store.last_words = '"begun": false'
    edit = {"message": {**said["message"], "output": "other"}}
    await page.event("edit_message", edit)
    await eventually(lambda: a.store.down, 10, "its last words")
    await a.die()
    b, again = instance(), await Wire.open(page.session)
    resumed = await again.resumes()
    answer = await again.asks(1, "edit_message", edit)
    await again.answered("other")
    return [resumed, answer, a.called, b.called]


async def nothing_held() -> Any:
    """A session that is nowhere: refused, and the client begins anew by itself."""
    b, wire = instance(), await Wire.open()
    folder = Path(".files") / wire.session
    folder.mkdir(parents=True)
    accepted = await wire.joins()
    refused, left = wire.last(), [wire.session in each for each in MEMORY[1:]]
    resumed = await wire.asks(0, "resume", {"streaming": None})
    await wire.close()
    writes, there = b.counts.writes, folder.is_dir()
    own = await (await Wire.open(wire.session)).begin()
    await own.turn("one")
    return [accepted, refused[:2], resumed, left, writes, there, b.begun, b.counts.refused_hand_overs]


async def unreadable() -> Any:
    """A state of another version, and a turn that was cut: the client's own connection hears of that."""
    b, wire, other = instance(), await Wire.open(), store()
    claim = await other.claim(wire.session, "", "other", 1, 60)
    turns = json.dumps([{"message": message("cut"), "tries": 0, "begun": True}])
    await other.write(wire.session, "", "other", Write(claim.fence, 1, '{"version": 99}', turns), 60)
    accepted = await wire.joins()
    own = await Wire.open(wire.session)
    await own.begin()
    await own.answered("cut off")
    return [accepted, b.begun, own.shown(), b.called]


async def older_copy() -> Any:
    """What lives here is older than what cannot be restored; until the client itself comes it stays."""
    b, page, other = instance(), await (await Wire.open()).begin(), store()
    await page.turn("one")
    await page.close()
    claim = await other.claim(page.session, "", "other", 1, 60)
    await other.write(page.session, "", "other", Write(claim.fence, 1, '{"version": 99}', None), 60)
    again = await Wire.open(page.session)
    accepted = await again.joins()
    sockets = [again.engine in str(each) for each in MEMORY[0]]
    own = await Wire.open(page.session)
    await own.begin()
    await own.turn("two")
    return [accepted, any(sockets), b.begun, own.shown()]


async def same_instance() -> Any:
    """The connection broke and the process lives: what runs goes on."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await page.event("client_message", said := message("wait"))
    await eventually(lambda: a.called[-1] == "wait", 10, "it runs")
    again = await Wire.open(page.session)
    resumed = await again.resumes("streamed")
    await page.close()
    answer = await again.asks(1, "client_message", said)
    a.gate.set()
    await again.answered("wait")
    return [resumed, answer, a.called, again.shown(), a.begun, "streamed" in str(again.got)]


async def came_by_itself() -> Any:
    """Its client is here already when the proxy hands over what that has left."""
    a, own = instance(), await (await Wire.open()).begin()
    await own.turn("one")
    ended = [own.transport(), (again := await Wire.open(own.session)).transport()]
    resumed = [await again.resumes(), await (await Wire.open(own.session)).resumes()]
    return [resumed, [each.ended for each in ended], a.begun]


async def refused_beside_its_client() -> Any:
    """Its client is here when a hand-over finds what cannot be restored."""
    _, own, other = instance(), await (await Wire.open()).begin(), store()
    await own.turn("one")
    claim, transport = await other.claim(own.session, "", "other", 1, 60), own.transport()
    await other.write(own.session, "", "other", Write(claim.fence, 1, '{"version": 99}', None), 60)
    return [await (await Wire.open(own.session)).joins(), transport.ended]


async def back_and_forth() -> Any:
    """Planned moves between two that live: the one that is left puts down what it has."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.settled()
    wires, resumed, live = [page], [], [a, b := instance()]
    for n, there in enumerate((b, a, b, a)):
        live[n % 2].enter()
        await wires[-1].say("1")
        await live[n % 2].settled()
        there.enter()
        wires.append(await Wire.open(page.session))
        resumed.append(await wires[-1].resumes())
        await wires[-1].turn(f"turn {n}")
    return [resumed, wires[-1].shown(), a.called, b.called, [one.counts.hand_overs for one in live]]


async def hostile() -> Any:
    """A client that speaks to the namespace itself gets nothing that it could not have by itself."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.say(f"0{OURS},")
    late = page.last()
    before = len(page.got)
    await page.event("resume", {"streaming": None}, space=OURS, ack=0)
    wire = await Wire.open()
    await wire.event("resume", {"streaming": None}, space=OURS, ack=0)
    await wire.event("client_message", message("no CONNECT"), space=OURS, ack=1)
    await asyncio.sleep(0.1)
    silent = [len(page.got) - before, len(wire.got)]
    await wire.say(f"0{OURS},")
    early = [await wire.asks(n, "client_message", message("no session")) for n in (0, 1)]
    early.append(await wire.asks(2, "resume", {"streaming": None}))
    await wire.say(f"0{OURS},")
    twice = wire.last()
    await page.turn("one")
    await a.die()
    b, again = instance(), await Wire.open(page.session)
    await again.joins()
    wrong: tuple[list[Any], ...] = ([], ["x"], [["x"]], [None])
    unresumed = await again.asks(1, "client_message", message("too soon"))
    broken = [await again.asks(n, "resume", *told) for n, told in enumerate(wrong)]
    resumed = [
        await again.asks(n, "resume", {"streaming": odd}) for n, odd in ((0, {"a": 1}), (9, "x" * 999))
    ]
    payloads: tuple[Any, ...] = (
        None,
        7,
        "text",
        [],
        {},
        {"message": None},
        {"message": {"id": 5}},
        {"message": {"id": ""}},
    )
    broken += [await again.asks(20 + n, "client_message", payload) for n, payload in enumerate(payloads)]
    broken += [await again.asks(40, "edit_message"), await again.asks(41, "client_message", {}, {}, 3)]
    await again.turn("two")
    return [
        late[:2],
        silent,
        early,
        twice[:2],
        unresumed,
        broken,
        resumed,
        a.called,
        b.called,
        again.names().count("clear_ask"),
    ]


async def late_answer() -> Any:
    """The answer to a question of the instance before is none to the new one's."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.event("client_message", message("ask one"))
    await page.heard("ask")
    old = next(packet for packet in page.got if '["ask"' in packet)
    await a.die()
    instance()
    again = await Wire.open(page.session)
    resumed = await again.resumes()
    await again.event("client_message", message("ask two"))
    await again.heard("ask")
    new = next(packet for packet in again.got if '["ask"' in packet)
    numbers = [packet[1 : packet.index("[")] for packet in (old, new)]
    for number, text in zip(numbers, ("for the old", "for the new"), strict=True):
        await again.say(f"3{number}" + json.dumps([message(text)["message"]]))
    await again.answered("ask two")
    return [resumed, numbers[0], again.shown()]


async def store_down() -> Any:
    """Who is not here is refused, and nothing is written when the store is back; who is here goes on."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.die()
    b = instance()
    b.store.down = True
    again = await Wire.open(page.session)
    accepted = await again.joins()
    b.store.down = False
    await eventually(lambda: b.counts.store_up, 10, "the store is back")
    writes, third = b.counts.writes, await Wire.open(page.session)
    answers = [accepted, await third.resumes()]
    await third.turn("two")
    b.store.down = True
    fourth = await Wire.open(page.session)
    answers.append(await fourth.resumes())
    await fourth.turn("three")
    return [answers, writes, third.shown(), fourth.shown()]


async def other_spaces() -> Any:
    """An app's own namespaces, on the same transport too."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.die()
    instance()

    async def heard(_: str, told: Any) -> Any:
        return ["app", told]

    sio.on("resume", heard, namespace="/app")
    again = await Wire.open(page.session)
    resumed = await again.resumes()
    await again.say("0/app,")
    await again.event("resume", 1, space="/app", ack=7)
    await eventually(lambda: again.find(lambda p: p.startswith("3/app,7")), 10, "the app's answer")
    await again.say(f"1{OURS},")
    await again.event("connection_successful")
    await again.turn("two")
    return [resumed, again.find(lambda p: p.startswith("3/app,7")), again.names().count("clear_ask")]


async def on_restore_first() -> Any:
    """What the app makes anew is there before what the client says next, however soon that comes."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.die()
    b, again = instance(), await Wire.open(page.session)
    await again.connect()
    await again.event("connection_successful")
    await again.event("client_message", message("two"))
    await again.answered("two")
    return b.begun


async def on_restore_that_never_returns() -> Any:
    """Its time is over at some point, and the user is heard again."""
    a, page = instance(), await (await Wire.open()).begin()
    await page.turn("one")
    await a.die()
    b = instance()
    b.hooks.on_restore.append(asyncio.Event().wait)
    before, hooks.RESTORES = hooks.RESTORES, 0.1
    try:
        again = await Wire.open(page.session)
        await again.connect()
        await again.event("connection_successful")
        await again.event("client_message", message("two"))
        await again.answered("two")
    finally:
        hooks.RESTORES = before
    return b.called


if __name__ == "__main__":
    here = [each for each in globals().values() if getattr(each, "__module__", "") == "__main__"]
    scenarios = [
        each for each in here if inspect.iscoroutinefunction(each) and not inspect.signature(each).parameters
    ]
    asyncio.run(play(scenarios))
