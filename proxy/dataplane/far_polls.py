"""Polling transports whose requests come to several proxies: what these tell each other of hand-overs.

One of them has read a transport's CONNECT, and it alone hands the transport over: the heads of its client do
not leave that process, nor does the CONNECT if it may hold keys of the user. The others ask it to when they
meet a backend that is lost, and hold the client's requests until they are told under which sid it goes on
(`e`, see `shared_directory`). If nobody answers, the sid is unknown, and the client connects anew. What a
client has said through this proxy and its instance may not have taken, this proxy says again to the next
one, which knows what it has.

A word on the channel is a letter, the teller and the client's sid: `w` wants a transport handed over, `b`
tells that this has begun, `f` that nothing came of it; `a` that its client has said a message, `k` that one
begins or ends to be answered, `m` the id of the message that is streamed; `p` that these poll. `c` tells a
CONNECT that holds but ids, for a websocket that takes over from polls elsewhere; `l` where a CONNECT led its
transport, and `h` what its instance answers to one that another proxy has read. What anybody said to an app
is not in them.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import cast

from proxy.affinity.answers import answered
from proxy.affinity.decision import EngineSession, Heads, Void
from proxy.affinity.engine import Elsewhere
from proxy.affinity.handing_over import said_again
from proxy.affinity.pins import split_pin
from proxy.affinity.telling import may_be_told
from proxy.affinity.untaken import NOTHING
from proxy.dataplane.fetch import tell
from proxy.dataplane.hand_over import GREETS, Place, Waits
from proxy.dataplane.patience import Timer
from proxy.dataplane.poll_hand_over import transport_key
from proxy.dataplane.upstream_heads import PollHeads
from proxy.errors import ProxyError
from proxy.wire.engineio import SEPARATOR

_BEGINS, _ENDS = "begins", "ends"
_TAKEN, _REFUSED = "taken", "refused"
_ANSWERS = 2.0  # seconds in which a proxy says that it hands over: some milliseconds, but it may be busy
_BEAT = 20.0  # seconds between two words that a transport polls; a third of the time that it is kept for
_MOST_TOLD = 100  # sids in one word
_MOST_BEGUN = 50_000  # transports not met here that are remembered as being handed over
_MOST_CONNECTS = 10_000  # that are remembered; each is some 300 bytes
_UPGRADES = 60.0  # seconds after its CONNECT in which a client goes over to a websocket
_LONGEST_ID = 64  # characters of a message's id; Chainlit's are UUIDs


class Awaited:
    """A transport that another proxy hands over, or was asked to; as `hand_over` of it."""

    def __init__(self, until: float, *, away: bool) -> None:
        self.until = until  # when nobody is waited for any more
        self.away = away  # as in `wish`
        self.is_answered = False  # whether somebody has said lately that it is handed over
        self.timer: Timer | None = None  # set while an answer is awaited

    def cancel(self) -> None:
        """Nothing is awaited."""
        if self.timer is not None:
            self.timer.cancel()

    def __repr__(self) -> str:
        return f"<Awaited answered={self.is_answered}>"


class FarPolls:
    """All of them; owned by HandOvers."""

    def __init__(self, site: Place, waits: Waits, is_on: Callable[[], bool]) -> None:
        self._site, self._waits, self._is_on = site, waits, is_on
        self._me = os.urandom(6).hex()
        self._begun: OrderedDict[bytes, float] = OrderedDict()  # when; of those that are not met here
        self._connects: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()  # when, and what
        self._beat_at = 0.0
        # Set by who owns them: a transport of which the CONNECT is here is wanted elsewhere, because its
        # session was sent away or is lost; polls that wait at a backend which their transport has left; the
        # same, if it goes on nowhere.
        self.wanted: Callable[[EngineSession, bool], bool] = lambda _engine, _away: False
        self.redirect: Callable[[EngineSession], None] = lambda _: None
        self.end: Callable[[EngineSession], None] = lambda _: None
        site.router.engines.followed = self._followed
        takers = {
            "w": self._take_wish,
            "b": self._take_begun,
            "f": self._take_failed,
            "a": self._take_said,
            "k": self._take_turn,
            "m": self._take_streamed,
            "p": self._take_polling,
            "c": self._take_connect,
            "l": self._take_moved,
            "h": self._take_heard,
        }
        for kind, taker in takers.items():
            site.shared.takers[kind] = partial(self._take, taker)

    @property
    def is_on(self) -> bool:
        """Whether others hear what is said here."""
        return self._site.router.shared and self._site.shared.up and self._is_on()

    # What happens here

    def meet(self, pinned: bytes) -> EngineSession | None:
        """A transport that is new here, if it is where its pin says no longer."""
        token, sid = split_pin(pinned)
        backend = self._site.router.fleet.by_token(token) if token else None
        if backend is None or not self.is_on:
            return None
        engines, has_begun = self._site.router.engines, self._begun.pop(sid, 0.0)
        if not (has_begun or engines.is_elsewhere(sid)) and backend.holds_pins:
            return None
        engine = engines.opened(sid, backend, monotonic())
        if has_begun and engine.backend is backend:
            self._await(engine, away=False).is_answered = True
        return engine

    def wish(self, engine: EngineSession, *, away: bool) -> bool:
        """Have whoever can hand a transport over do it; whether that is waited for.

        `away`: its session was sent away, and its backend is there.
        """
        if engine.hand_over is None:
            if not self.is_on or engine.kept is not None or engine.tunnels:
                return False
            if isinstance(engine.decision, Void):
                return False
            self._await(engine, away=away)
            self._ask(engine, away=away)
        return True

    def _ask(self, engine: EngineSession, *, away: bool) -> None:
        self._say("w", engine, engine.upstream_sid.decode("latin-1"), "away" if away else "lost")

    @property
    def _hears(self) -> bool:
        """Whether others hear where sessions are, though none is handed over."""
        return self._site.router.shared and self._site.shared.up

    def hopes_for(self, engine: EngineSession | None) -> bool:
        """Whether another proxy may have seen its CONNECT, and says so in a moment."""
        return engine is not None and engine.session is None and engine.claim is None and self._hears

    def is_left_to(self, engine: EngineSession) -> bool:
        """Whether one that has to leave its backend is left alone until somebody wants it handed over.

        Its client may poll through another proxy, or may have a websocket there by now.
        """
        return self.is_on and engine.kept is not None and not engine.polls

    def connects(self, engine: EngineSession) -> None:
        """Its CONNECT has come to this process."""
        if may_be_told(engine.connect):
            self._say("c", engine, engine.connect.decode())

    def connect_of(self, engine: EngineSession) -> bytes:
        """Its CONNECT, if that is known here."""
        return engine.connect or self._connects.get(engine.sid, (0.0, b""))[1]

    def moved(self, engine: EngineSession) -> None:
        """Its CONNECT, which its instance has not answered yet, has led it to another one."""
        if self._hears:
            self._tell("l", engine, engine.backend.name, engine.upstream_sid.decode("latin-1"))

    def heard(self, engine: EngineSession, *, taken: bool) -> None:
        """Its instance answers a CONNECT that has not come to this process."""
        if self._hears:
            self._tell("h", engine, _TAKEN if taken else _REFUSED)

    def begun(self, engine: EngineSession) -> None:
        """It is handed over by this process."""
        self._say("b", engine)

    def failed(self, engine: EngineSession) -> None:
        """That led nowhere."""
        self._say("f", engine)

    def said(self, engine: EngineSession, heads: Heads, count: int) -> None:
        """Its client has said so many messages by a request to this process."""
        if self.is_on:
            engine.speaks = heads
            for _ in range(count):
                self._say("a", engine)

    def turns(self, engine: EngineSession, *, begins: bool) -> None:
        """Its instance begins to answer one, or has answered it, as a poll has told here."""
        if engine.untaken is not NOTHING:
            self._say("k", engine, _BEGINS if begins else _ENDS)

    def streams(self, engine: EngineSession) -> None:
        """A poll has told of a token of another message."""
        if engine.streamed.isprintable() and " " not in engine.streamed:
            self._say("m", engine, engine.streamed)

    def sweep(self, now: float) -> None:
        """Tell who polls through this process; called every few seconds."""
        while self._begun and next(iter(self._begun.values())) + self._longest < now:
            self._begun.popitem(last=False)
        while self._connects and next(iter(self._connects.values()))[0] + _UPGRADES < now:
            self._connects.popitem(last=False)
        if not self.is_on or now < self._beat_at + _BEAT:
            return
        since, self._beat_at = self._beat_at, now
        polling = self._site.router.engines.polling_for_others(since)
        for at in range(0, len(polling), _MOST_TOLD):
            first, *others = polling[at : at + _MOST_TOLD]
            self._say("p", first, *(engine.sid.decode("latin-1") for engine in others))

    # What others tell

    def _take(self, taker: Callable[[bytes, list[str]], None], text: str) -> None:
        teller, _, words = text.partition(" ")
        sid, *rest = words.split(" ")
        if sid and teller != self._me:
            taker(sid.encode("latin-1", "replace"), rest)

    def _take_wish(self, sid: bytes, rest: list[str]) -> None:
        engine = self._site.router.engines.get(sid)
        if engine is None or engine.kept is None or engine.session is None or len(rest) != 2:
            return
        if engine.hand_over is not None:
            self.begun(engine)
        elif engine.upstream_sid.decode("latin-1") != rest[0]:
            self._site.router.engines.tell(engine)
        elif not self.wanted(engine, rest[1] == "away"):
            self.failed(engine)

    def _take_begun(self, sid: bytes, _rest: list[str]) -> None:
        engine = self._site.router.engines.get(sid)
        if engine is None:
            self._begun[sid] = monotonic()
            if len(self._begun) > _MOST_BEGUN:
                self._begun.popitem(last=False)
        elif engine.kept is None and not isinstance(engine.decision, Void):
            self._await(engine, away=False).is_answered = True

    def _take_failed(self, sid: bytes, _rest: list[str]) -> None:
        self._begun.pop(sid, None)
        engine = self._site.router.engines.get(sid)
        if engine is not None and isinstance(engine.hand_over, Awaited):
            self._give_up(engine)

    def _take_said(self, sid: bytes, _rest: list[str]) -> None:
        engine = self._site.router.engines.get(sid)
        if engine is not None:
            engine.says(monotonic())
            engine.hears().said_elsewhere()

    def _take_turn(self, sid: bytes, rest: list[str]) -> None:
        engine = self._site.router.engines.get(sid)
        if engine is not None and rest in ([_BEGINS], [_ENDS]):
            engine.untaken.hear(begins=rest == [_BEGINS])

    def _take_streamed(self, sid: bytes, rest: list[str]) -> None:
        engine = self._site.router.engines.get(sid)
        if engine is not None and len(rest) == 1 and len(rest[0]) <= _LONGEST_ID:
            engine.streams(rest[0])

    def _take_connect(self, sid: bytes, rest: list[str]) -> None:
        connect = " ".join(rest).encode()
        if may_be_told(connect):
            self._connects[sid] = monotonic(), connect
            if len(self._connects) > _MOST_CONNECTS:
                self._connects.popitem(last=False)

    def _take_moved(self, sid: bytes, rest: list[str]) -> None:
        backend = self._site.router.fleet.get(rest[0]) if len(rest) == 2 else None
        if backend is not None:
            elsewhere = Elsewhere(None, backend, rest[1].encode("latin-1", "replace"), monotonic())
            self._site.router.engines.connected_elsewhere(sid, elsewhere)

    def _take_heard(self, sid: bytes, rest: list[str]) -> None:
        engine = self._site.router.engines.get(sid)
        if engine is not None and rest in ([_TAKEN], [_REFUSED]):
            answered(self._site.router, engine, monotonic(), taken=rest == [_TAKEN])

    def _take_polling(self, sid: bytes, rest: list[str]) -> None:
        now = monotonic()
        for each in (sid, *(other.encode("latin-1", "replace") for other in rest)):
            engine = self._site.router.engines.get(each)
            if engine is not None and engine.kept is not None:
                engine.heard_of = now

    # Who waits

    @property
    def _longest(self) -> float:
        """Seconds that a hand-over takes at most."""
        return self._waits.hold + GREETS

    def _await(self, engine: EngineSession, *, away: bool) -> Awaited:
        awaited = engine.hand_over
        if not isinstance(awaited, Awaited):
            awaited = engine.hand_over = Awaited(monotonic() + self._longest, away=away)
            self._site.router.engines.note_plain(engine)
            self._wait(engine, awaited)
        return awaited

    def _wait(self, engine: EngineSession, awaited: Awaited) -> None:
        awaited.is_answered = False
        awaited.timer = Timer(self._site.stood, _ANSWERS, lambda: self._late(engine, awaited))

    def _late(self, engine: EngineSession, awaited: Awaited) -> None:
        """Whoever said lately that it hands it over is asked once more; of its end nothing may have come."""
        if awaited.is_answered and self.is_on and monotonic() < awaited.until:
            self._wait(engine, awaited)
            self._ask(engine, away=awaited.away)
        else:
            self._give_up(engine)

    def _followed(self, engine: EngineSession, was_settled: bool) -> None:
        """Its new sid was told: what was said through this process is said again, then it goes on."""
        if engine.polls and was_settled:
            self.redirect(engine)
        again = engine.untaken.again_later(monotonic())
        if again and engine.speaks is not None:
            self._await(engine, away=False).cancel()
            work = partial(self._say_again, engine, cast("PollHeads", engine.speaks), again)
            self._site.spawn(work, lambda: self._give_up(engine))
        else:
            self._end(engine)

    async def _say_again(self, engine: EngineSession, heads: PollHeads, again: list[bytes]) -> None:
        content = SEPARATOR.join(map(said_again, again))
        try:
            message = heads.post(engine.upstream_sid, content)
            answer = await tell(self._site.pool(engine.backend), b"POST", message, self._waits.hold)
        except ProxyError as error:
            self._site.report(engine.backend, error)
            self._give_up(engine)
            return
        if answer.status == 200:
            self._end(engine)
        else:
            self._give_up(engine)

    def _give_up(self, engine: EngineSession) -> None:
        """Nobody goes on with it: its client is told that its sid is unknown, and connects anew."""
        self._site.router.engines.void(engine, monotonic())
        self.end(engine)
        self._end(engine)

    def _end(self, engine: EngineSession) -> None:
        awaited = engine.hand_over
        if isinstance(awaited, Awaited):
            awaited.cancel()
            engine.hand_over = None
            self._site.router.engines.note_plain(engine)
            self._site.arrivals.release(transport_key(engine))

    def _say(self, kind: str, engine: EngineSession, *words: str) -> None:
        if self.is_on:
            self._tell(kind, engine, *words)

    def _tell(self, kind: str, engine: EngineSession, *words: str) -> None:
        self._site.shared.say(" ".join((kind, self._me, engine.sid.decode("latin-1"), *words)))

    def __repr__(self) -> str:
        return f"<FarPolls begun={len(self._begun)}>"
