"""Who waits while the backends have as many sessions as they may have, and for whom a place is kept.

Who wants in asks again every few seconds, under a name of its own: a ticket, or its session. The oldest is
let in first. Who was silent for a moment is passed over and keeps its place: a page in a tab that is not
shown is woken once a minute. Who is let in has its place kept until its session has come, and goes back to
the head of the queue if that takes too long. A page that is loaded anew has a session already: the new
session takes the old one's place, as its heir.

Pure: how much room there is, is an argument, as is the time.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

EVERY = 3  # seconds between two questions of one page
PRESENT = 10.0  # seconds since its last question: then it is its turn no more until it asks again
FORGOTTEN = 90.0  # the same, until it has no place any more: browsers wake hidden pages once a minute
KEPT = 30.0  # seconds from being let in until the session connects: a large page over a slow network
_SHARE = 4  # a client has one in so many of all places at most
_HEIRS = 4  # of one session: as many pages as a browser may load at once with the cookie of the session
_PAUSE = 1.0  # seconds between two looks at what has expired: there may be thousands


class Place(NamedTuple):
    """What somebody is told who has to wait."""

    number: int  # 1 is the next; 0: the queue is full, it has none
    of: int  # how many wait


@dataclass(slots=True)
class _Ticket:
    """One that waits."""

    whose: str  # the client that it counts for, "" for nobody
    browser: bytes  # by which it is found if it does not name its ticket; empty: it does
    since: float
    seen: float  # when it asked last


@dataclass(slots=True)
class _Kept:
    """A place that is kept."""

    ticket: _Ticket
    until: float


class Queue:
    """All of them; made by the data plane's door, which is asked."""

    __slots__ = (
        "_followed",
        "_heirs",
        "_held_of",
        "_kept",
        "_line",
        "_looked",
        "admitted",
        "given_up",
        "most",
        "turned_away",
        "waited",
    )

    def __init__(self, most: int, waited: Callable[[float], None] = lambda _: None) -> None:
        """At most so many wait; `waited` is told of the seconds of each that is let in."""
        self.most = most
        self.waited = waited
        self.admitted = 0  # who have waited, and were let in
        self.given_up = 0  # who have asked no more
        self.turned_away = 0  # who found the queue full, or had too many places: counted at each question
        self._line: dict[str, _Ticket] = {}  # by name, oldest first
        self._kept: dict[str, _Kept] = {}  # by name: let in, and its session has not come
        self._heirs: dict[str, tuple[str, float]] = {}  # session -> whose place it takes, until when
        self._followed: dict[str, float] = {}  # whose places others have taken, and how long that is known
        self._held_of: Counter[str] = Counter()  # places by client, kept ones among them
        self._looked = float("-inf")  # when it was last looked what has expired

    def ask(self, name: str, whose: str, browser: bytes, now: float, room: int) -> Place | None:
        """Somebody wants in; None: it is let in, and has a place kept for it.

        `room` is how many more sessions there may be, without those for whom a place is kept. `browser` is
        empty where who asks has named its ticket, so that it will do so again.
        """
        self.sweep(now)
        if name in self._kept:
            return None
        room -= len(self._kept)
        ticket = self._line.get(name)
        if ticket is None:
            return self._come(name, _Ticket(whose, browser, now, now), now, room)
        ticket.seen, ticket.browser = now, ticket.browser and browser
        if not self._has_turn(ticket, now, room):
            return Place(list(self._line).index(name) + 1, len(self._line))
        del self._line[name]
        self.admitted += 1
        self.waited(now - ticket.since)
        self._keep(name, ticket, now)
        return None

    def _come(self, name: str, ticket: _Ticket, now: float, room: int) -> Place | None:
        has_turn = self._has_turn(ticket, now, room)
        has_its_share = self._held_of[ticket.whose] >= max(1, self.most // _SHARE)
        if has_its_share or not (has_turn or len(self._line) < self.most):
            self.turned_away += 1
            return Place(0, len(self._line))
        self._hold(ticket, 1)
        if has_turn:
            self._keep(name, ticket, now)
            return None
        self._line[name] = ticket
        return Place(len(self._line), len(self._line))

    def _has_turn(self, ticket: _Ticket, now: float, room: int) -> bool:
        """Whether there is room for it and for all who came before it and have asked of late."""
        if room <= 0:
            return False
        for other in self._line.values():
            if other is ticket:
                break
            room -= other.seen > now - PRESENT
            if not room:
                return False
        return True

    def take(self, session: str, name: str, browser: bytes, now: float) -> bool:
        """A session begins: whether a place was kept for it, for this ticket, or for this browser."""
        self.sweep(now)
        if session in self._kept:
            return True
        if name not in self._kept:
            name = self.kept_for(browser)
        kept = self._kept.pop(name, None)
        if kept is None:
            return False
        kept.ticket.browser = b""
        self._give_up(session)
        self._kept[session] = kept
        return True

    def kept_for(self, browser: bytes) -> str:
        """The name of a place that is kept for a browser that does not say its ticket, "" for none."""
        if not browser:
            return ""
        return next((name for name, kept in self._kept.items() if kept.ticket.browser == browser), "")

    def has(self, name: str) -> bool:
        """Whether a place is kept under this name, or is to be taken over."""
        return name in self._kept or name in self._heirs

    def waits(self, name: str) -> bool:
        """Whether it has a place in the queue."""
        return name in self._line

    def came(self, session: str) -> None:
        """It is one of the sessions now: nothing is kept for it any more."""
        self._heirs.pop(session, None)
        self._give_up(session)

    def _give_up(self, name: str) -> None:
        """It has no place any more, of those that are counted."""
        if (kept := self._kept.pop(name, None)) is not None:
            self._hold(kept.ticket, -1)
        if (ticket := self._line.pop(name, None)) is not None:
            self._hold(ticket, -1)

    def is_kept(self, name: str) -> bool:
        """Whether a place is kept under this name."""
        return name in self._kept

    def kept(self) -> list[str]:
        """The names for which places are kept."""
        return list(self._kept)

    def leaves(self, session: str, now: float) -> None:
        """A browser that has a session loads a page: its next session takes the place of this one.

        One of the next ones does: of more than a few only the newest are known.
        """
        if session in self._heirs:
            return
        others = [name for name, (before, _) in self._heirs.items() if before == session]
        for name in others[: 1 - _HEIRS]:
            del self._heirs[name]
        self._heirs[session] = session, now + KEPT

    def becomes(self, before: str, session: str, now: float) -> None:
        """What a browser has been known by is this session from now on."""
        if session in self._kept:
            return
        if (kept := self._kept.pop(before, None)) is not None:
            self._give_up(session)
            self._kept[session] = kept
        elif before in self._heirs:
            self._heirs[session] = (self._heirs.pop(before)[0], now + KEPT)

    def inherited(self, session: str) -> str:
        """Whose place a session is to take, "" for nobody's."""
        return self._heirs.get(session, ("", 0.0))[0]

    def inheritances(self) -> set[str]:
        """The sessions whose places are to be taken by others."""
        return {before for before, _ in self._heirs.values()}

    def succeed(self, session: str, whose: str, now: float) -> bool:
        """The session takes the place of the other one, which is kept until it has come; one session does."""
        before, _ = self._heirs.pop(session)
        if before in self._followed:
            return False
        self._followed[before] = now + 2 * KEPT
        waits = self._line.get(session)
        self._give_up(session)
        self._hold(ticket := waits or _Ticket(whose, b"", now, now), 1)
        self._keep(session, ticket, now)
        return True

    def _keep(self, name: str, ticket: _Ticket, now: float) -> None:
        self._kept[name] = _Kept(ticket, now + KEPT)

    def _hold(self, ticket: _Ticket, places: int) -> None:
        if ticket.whose:
            self._held_of[ticket.whose] += places
            if not self._held_of[ticket.whose]:
                del self._held_of[ticket.whose]

    def sweep(self, now: float) -> None:
        """Take note of what time has done, if the last look is long enough ago."""
        if now < self._looked + _PAUSE:
            return
        self._looked = now
        back: dict[str, _Ticket] = {}
        for name in [name for name, kept in self._kept.items() if kept.until <= now]:
            ticket = self._kept.pop(name).ticket
            if ticket.seen > ticket.since:  # it has waited: it may be typing its password
                back[name] = ticket
            else:
                self._hold(ticket, -1)
        if back:
            first = sorted(back.items(), key=lambda item: item[1].since)  # as they came
            self._line = {**dict(first), **self._line}
        for name in [name for name, ticket in self._line.items() if ticket.seen <= now - FORGOTTEN]:
            self._give_up(name)
            self.given_up += 1
        for session in [session for session, (_, until) in self._heirs.items() if until <= now]:
            del self._heirs[session]
        for session in [session for session, until in self._followed.items() if until <= now]:
            del self._followed[session]

    def __len__(self) -> int:
        return len(self._line)

    def __repr__(self) -> str:
        return f"<Queue waiting={len(self._line)} kept={len(self._kept)} heirs={len(self._heirs)}>"
