"""Who may come in while each backend may have so many sessions only (`balance.most_sessions`).

Two things are looked at: page loads, for which there is a page that tells the place in the queue, and the
CONNECT packets with which sessions begin. A handshake is let through: it may be that of a tab that has long
been in, for all that its cookie names is the newest tab of its browser. Whoever has a session, or had one a
moment ago, is not looked at. The rule of the queue is `affinity.queue`. Where no backend takes sessions at
all, who waits goes on waiting, and this has no say on others.
"""

import re
import secrets
from time import monotonic

from proxy.affinity.claims import Claim
from proxy.affinity.evidence import Kind
from proxy.affinity.queue import EVERY, KEPT, Queue
from proxy.affinity.router import Router
from proxy.affinity.session import Session
from proxy.dataplane.patience import Stood, running_time
from proxy.dataplane.request import Request
from proxy.dataplane.stats import LIVES, Histogram
from proxy.errors import Limit, OverLimit
from proxy.wire.cookies import get_cookie, ticket_cookie
from proxy.wire.reply import ADMITTED, Reply, queue_page

_COOKIE = b"chainlit_queue"
_FIELD = b"x-chainlit-queue"  # with which the waiting page asks, also where cookies are refused
_TICKET = re.compile(rb"[A-Za-z0-9_-]{8,64}")  # ours, or a session's id
_BYTES = 16  # of a ticket: nobody guesses another one's
_REMEMBERED = 120  # seconds that a browser keeps its ticket: longer than its place is kept
_MODES, _DESTINATIONS = (b"navigate", None), (b"document", b"iframe", b"frame", None)  # of pages


class Door:
    """Made by the Site; asked by exchanges and openings while there is a limit."""

    __slots__ = ("_coming", "_router", "_stood", "queue", "seconds")

    def __init__(self, router: Router, most: int, stood: Stood) -> None:
        """At most so many wait."""
        self._router = router
        self._stood = stood
        self._coming: set[str] = set()  # sessions whose CONNECT was let in, and may not be answered yet
        self.seconds = Histogram(LIVES)  # that those have waited who were let in
        self.queue = Queue(most, self.seconds.add)

    def turns_away(self, request: Request) -> Reply | None:
        """What somebody is told who has to wait to get a page; None: it may go on.

        A page that waits is told that it is its turn, too: the app hears of one page load only, which may be
        the return from a login that is good for once.
        """
        if request.kind is not Kind.PLAIN or request.head.method != b"GET":
            return None
        field = request.head.fields.get(_FIELD)
        if field is None and not _is_page(request):
            return None
        answer = self._place(request, field)
        if answer is None and field is not None and self._takes_sessions:
            return ADMITTED
        return answer

    def _place(self, request: Request, field: bytes | None) -> Reply | None:
        queue, known, now = self.queue, request.known, self._now
        self._note_arrivals()
        hints, cookie = known.hints, _cookie_of(request)
        if queue.has(cookie) or self._has_session(hints.cookie_session, now):
            return None
        name, session_id = cookie or _ticket(field), hints.cookie_session or ""
        if not name and queue.waits(session_id):
            name = session_id  # of a page that could not connect, and is loaded anew
        browser = b"" if cookie else hints.client
        if not (self._takes_sessions or queue.waits(name)):
            return None
        if not name and queue.kept_for(browser):
            return None
        name = name or secrets.token_urlsafe(_BYTES)
        place = queue.ask(name, known.client, browser, now, self._room())
        if place is None:
            return None
        lines = ticket_cookie(_COOKIE, name.encode(), _REMEMBERED, secure=known.secure)
        return queue_page(place.number, place.of, name, EVERY, lines, as_text=field is not None)

    def announced(self, session_id: str, request: Request) -> None:
        """A page tells which session it will connect as: what is kept for its browser is kept for that."""
        hints, now = request.known.hints, self._now
        self._note_arrivals()
        before = hints.cookie_session
        if before and before != session_id and self._has_session(before, now):
            self.queue.becomes(before, session_id, now)
        else:
            self.queue.take(session_id, _cookie_of(request), hints.client, now)

    def refuses(self, claim: Claim | None, request: Request) -> bool:
        """Whether the session that a CONNECT names may not begin: then its claim has ended."""
        if claim is None:
            return False
        if self._lets_in(claim, request):
            self._coming.add(claim.session_id)
            return False
        self._router.refused(claim)
        return True

    def _lets_in(self, claim: Claim, request: Request) -> bool:
        """Whether it may, or goes on: it has been somewhere."""
        self._note_arrivals()
        queue, now, name = self.queue, self._now, claim.session_id
        session = self._session(name)
        if claim.located or (session is not None and (session.connected or session.located)):
            return True
        whose, ticket = request.known.client, _cookie_of(request)
        if (before := queue.inherited(name)) and self._has_gone(before) and queue.succeed(name, whose, now):
            return True
        if queue.take(name, ticket, request.known.hints.client, now):
            return True
        if queue.waits(ticket):
            has_turn = queue.ask(ticket, whose, b"", now, self._room()) is None
            return has_turn and queue.take(name, ticket, b"", now)
        return queue.ask(name, whose, b"", now, self._room()) is None

    @staticmethod
    def full() -> OverLimit:
        """What a client is told whose session may not begin."""
        reason = "every instance has as many sessions as it may have"
        return OverLimit(Limit.MOST_SESSIONS, reason, status=503, retry_after=EVERY)

    def counts(self) -> dict[str, int]:
        """Who waits and for whom places are kept, now; and what has come of all others since the start."""
        queue = self.queue
        return {
            "waiting": len(queue),
            "kept": len(queue.kept()),
            "admitted": queue.admitted,
            "given_up": queue.given_up,
            "turned_away": queue.turned_away,
        }

    def sweep(self, _now: float) -> None:
        """Forget who asks no more; called every few seconds."""
        self._note_arrivals()
        for name in self.queue.kept():  # some may have come while there was no limit
            self._note_arrival(name)
        self.queue.sweep(self._now)

    @property
    def _now(self) -> float:
        """Seconds in which this process ran: nobody could ask in others."""
        return running_time(self._stood)

    @property
    def _takes_sessions(self) -> bool:
        return any(each.takes_sessions for each in self._router.fleet)

    def _room(self) -> int:
        """How many more sessions there may be, but for those whose places are kept."""
        free = self._router.fleet.room
        for before in self.queue.inheritances():
            session = self._session(before)
            free -= session is None or session.counted is None
        return free

    def _note_arrivals(self) -> None:
        """Nothing is kept any more for sessions that have come.

        Of thousands for whom places may be kept, few are just connecting.
        """
        for name in list(self._coming):
            self._note_arrival(name)
            if not (self.queue.is_kept(name) or self.queue.waits(name)):
                self._coming.discard(name)

    def _note_arrival(self, name: str) -> None:
        if (session := self._session(name)) is not None and session.connected:
            self.queue.came(name)

    def _session(self, session_id: str) -> Session | None:
        return self._router.directory.get(session_id, monotonic())

    def _has_session(self, session_id: str | None, now: float) -> bool:
        """Whether the browser that names it is in: then its next session takes the place of this one.

        That of a tab that was closed a moment ago counts as well: it is loaded anew.
        """
        if session_id is None or self.queue.has(session_id):
            return session_id is not None
        session = self._session(session_id)
        if session is None or not session.connected:
            return False
        closed_at = session.expires - self._router.directory.session_timeout
        if not session.open and closed_at + KEPT < monotonic():
            return False
        self.queue.leaves(session_id, now)
        return True

    def _has_gone(self, session_id: str) -> bool:
        """Whether nobody uses a session any more; a page that polls leaves without a word."""
        session = self._session(session_id)
        if session is None or not session.open:
            return True
        transports = self._router.engines.of({session})
        return session.open <= sum(not (each.polls or each.tunnels) for each in transports)

    def __repr__(self) -> str:
        return f"<Door {self.queue!r}>"


def _is_page(request: Request) -> bool:
    """Whether a browser shows a person what it gets."""
    fields = request.head.fields
    if request.wants_upgrade or b"text/html" not in (fields.get(b"accept") or b""):
        return False
    return fields.get(b"sec-fetch-mode") in _MODES and fields.get(b"sec-fetch-dest") in _DESTINATIONS


def _cookie_of(request: Request) -> str:
    return _ticket(get_cookie(b";".join(request.head.fields.get_all(b"cookie")), _COOKIE))


def _ticket(value: bytes | None) -> str:
    """The ticket that is named, "" for none."""
    return value.decode() if value is not None and _TICKET.fullmatch(value) else ""
