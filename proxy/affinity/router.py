"""The rule of affinity: which backend a request goes to, told by the strongest evidence it carries.

Every method is synchronous and answers at once with one of three things: a `Decision`; `Locate`, which
asks the caller to find out whether some backend knows the session and to call again with the result; or
`Void`, for a sid whose backend is gone. Sessions move once and as one: only here, only when the backend
they live on no longer holds pins or has sent them away, and never back to one that they left while another
choice exists.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.claims import Claim, Claims
from proxy.affinity.decision import Decision, Outcome, Void
from proxy.affinity.directory import Directory
from proxy.affinity.engine import EngineSessions
from proxy.affinity.evidence import Evidence, Hints
from proxy.affinity.fleet import Fleet
from proxy.affinity.pins import split_pin
from proxy.affinity.placement import Placement
from proxy.affinity.session import MoveReason, Session
from proxy.config import Config
from proxy.config.values import Locate as LocateMode
from proxy.errors import NoBackend

_JUST = 10.0  # seconds: a page connects as soon as its announcement is answered


@dataclass(frozen=True, slots=True)
class Locate:
    """Ask the directory that proxies share, if there is one, and these backends; then call again."""

    session_id: str
    backends: tuple[Backend, ...]
    is_new: bool = False  # no backend need be asked, unless what the others know cannot be had


class Asked(Enum):
    """Stands for the result of a locate that told nothing."""

    NOT_YET = "not_yet"  # it has not been made
    IN_VAIN = "in_vain"  # not all of the backends could be asked, or have said whether they hold it


Located = Backend | None | Asked


class Router:
    """Decides; owned by the app, used by the data plane."""

    def __init__(
        self,
        fleet: Fleet,
        directory: Directory,
        placement: Placement,
        locate: LocateMode = LocateMode.AUTO,
    ) -> None:
        self.fleet = fleet
        self.directory = directory
        self.placement = placement
        self.engines = EngineSessions(directory)
        self.claims = Claims()
        self.engines.let_go = self.refused
        self.locate = locate
        self.alone = False  # no other proxy leads to the backends
        self.sole = False  # every session there is came through this proxy: it started the backends itself
        fleet.listen(self._backend_changed)
        self.shared = False  # whether other proxies' directory is asked before a session is placed or moved

    def configure(self, config: Config) -> None:
        """Place, locate and remember as it is configured."""
        affinity, balance = config.affinity, config.balance
        self.locate, self.alone = affinity.locate, affinity.alone
        self.directory.past.overlap = config.timeouts.hand_over + config.timeouts.shutdown
        self.placement.bound, self.placement.slow_start = balance.bound, balance.slow_start
        self.directory.resize(affinity.directory.size, affinity.session_timeout)

    @property
    def is_alone(self) -> bool:
        """Whether all clients come through this proxy, so that it knows who has never been here."""
        return self.locate is LocateMode.AUTO and (self.sole or (self.alone and not self.shared))

    def _backend_changed(self, backend: Backend, _event: str) -> None:
        if not backend.holds_pins:
            self.directory.lost(backend)

    def by_sid(self, pinned: bytes, now: float) -> Decision | Void | None:
        """A poll or upgrade with a sid; None: it carries no pin, so other evidence must do."""
        token, sid = split_pin(pinned)
        if not token:
            return None
        engine = self.engines.get(sid)
        if engine is None:
            backend = self.fleet.by_token(token)
            if backend is None or not backend.holds_pins:
                return Void.VOID
            engine = self.engines.opened(sid, backend, now)
        elif not engine.backend.holds_pins:
            self.engines.closed(engine, now)
            return Void.VOID
        engine.seen = now
        return engine.decision

    def by_session(
        self,
        session_id: str,
        evidence: Evidence,
        now: float,
        located: Located = Asked.NOT_YET,
        avoid: Collection[str] = (),
        hints: Hints | None = None,
    ) -> Decision | Locate:
        """A request that names its session, for sure or as a guess; see also `is_coming`. Raises NoBackend.

        Those named in `avoid` did not accept in time; a session moves away from one only if the request
        itself named it, for the session of a guess may be another tab's and live there. Where it could not
        be found out who holds the session, it is not taken for new: `hints`, if there are any, decide.
        """
        if hints is not None and self._is_in_vain(session_id, now, located):
            pinned = self._pinned(hints, avoid)  # it may hold the session, if it drains too
            if pinned is not None:
                return Decision(pinned, Evidence.PIN_COOKIE, Outcome.PINNED)
            return self.plain(hints, now, avoid)
        session = self.directory.get(session_id, now)
        home = session.backend if session else None
        if session is not None and home is not None and session.stays:
            if home.name not in avoid:
                return Decision(home, evidence, Outcome.PINNED, session)
            if evidence is not Evidence.SESSION:
                return Decision(self._place(session_id.encode(), now, avoid), evidence, Outcome.PLACED)
        claimed = self.claims.at(session_id)
        if claimed is not None and claimed.name not in avoid:
            return Decision(claimed, evidence, Outcome.PINNED)
        if home is None or self.shared:
            opens = evidence is not Evidence.SESSION
            asked = self._ask(session_id, session, located, now, opens=opens)
            if asked is not None:
                return asked
        if home is None and isinstance(located, Backend) and located.holds_pins:
            session = self.directory.assign(session_id, located, now, evidence, located=True)
            return Decision(located, evidence, Outcome.LOCATED, session)
        is_guess = evidence is not Evidence.SESSION
        backend = self._elsewhere(session_id, session, home, now, avoid, reserve=is_guess)
        moved = Outcome.PINNED if backend is home else Outcome.MOVED
        outcome = Outcome.PLACED if home is None else moved
        only_named = session is None or not session.connected
        session = self.directory.assign(session_id, backend, now, evidence, only_named=only_named)
        return Decision(backend, evidence, outcome, session)

    def is_coming(self, session_id: str, now: float, patience: float) -> bool:
        """Whether a request had better wait for its session, which was lost less than `patience` ago."""
        session = self.directory.get(session_id, now)
        return session is not None and session.is_coming(now, patience)

    def handshake(
        self, hints: Hints, now: float, located: Located = Asked.NOT_YET, avoid: Collection[str] = ()
    ) -> Decision | Locate:
        """An Engine.IO handshake: a guess, unless a header names the session. Raises NoBackend.

        The backends are not asked for a guess: CONNECT will name the session. Only where they always are,
        since there no other proxy hears that a guess was wrong.
        """
        if hints.session is not None:
            named, evidence = hints.session, Evidence.SESSION
        elif hints.cookie_session is not None:
            named, evidence = hints.cookie_session, Evidence.CHAINLIT_COOKIE
            if self.locate is LocateMode.AUTO and not self._is_told(named, now, located):
                asked = self._ask(named, None, located, now, opens=True) if self.shared else None
                return replace(asked, is_new=True) if asked else self._by_pin(hints, now, avoid)
        else:
            return self._by_pin(hints, now, avoid)
        if self._is_in_vain(named, now, located):
            return self._by_pin(hints, now, avoid)  # CONNECT names it again, and then they are asked again
        return self.by_session(named, evidence, now, located, avoid)

    def plain(
        self, hints: Hints, now: float, avoid: Collection[str] = (), *, anywhere: bool = False
    ) -> Decision:
        """A request without a session: any backend does, the browser's own is best. Raises NoBackend.

        `anywhere`: it asks for a page or a file, which need not wait for a backend that is slow. One that
        drains gets none of these while another takes sessions.
        """
        pinned = self._pinned(hints, avoid)
        if pinned is not None:
            stays = pinned.takes_sessions or not (anywhere or pinned.admin_state is AdminState.DRAIN)
            if stays:
                return Decision(pinned, Evidence.PIN_COOKIE, Outcome.PINNED)
        backend = self.placement.place(hints.client, self.fleet, now, avoid=avoid)
        if backend is None and pinned is not None:
            return Decision(pinned, Evidence.PIN_COOKIE, Outcome.PINNED)
        if backend is None:
            # Nobody takes sessions, but a page of a session that goes on may still load its assets.
            holding = [b for b in self.fleet if b.holds_pins and b.name not in avoid]
            backend = next(self.placement.preference(hints.client, holding, now), None)
        if backend is None:
            raise NoBackend("no backend takes requests")
        return Decision(backend, Evidence.CLIENT, Outcome.PLACED)

    def connect(
        self,
        session_id: str,
        at: Backend,
        now: float,
        located: Located = Asked.NOT_YET,
        avoid: Collection[str] = (),
        *,
        reserve: bool = False,
    ) -> Decision | Locate:
        """A CONNECT packet on a transport at backend `at` names its session; tell where that belongs.

        Where it is known from other requests only, the backends are asked for it again. Nothing changes by
        it: the decision holds a claim, for `taken` or `refused`, or may `reserve` a place. Raises NoBackend.
        """
        session = self.directory.get(session_id, now)
        home = session.backend if session else None
        stays = home if session is not None and session.stays else None
        is_unsure = session is not None and session.is_unsure  # then who holds it may still be told
        if stays is not None and not is_unsure:
            outcome = Outcome.PINNED if stays is at else Outcome.REHOMED
            return self._claim(Claim(session_id, stays), outcome, session)
        if (claimed := self.claims.at(session_id)) is not None:
            outcome = Outcome.PINNED if claimed is at else Outcome.REHOMED
            return self._claim(Claim(session_id, claimed, Evidence.SESSION), outcome)
        if home is None or is_unsure or self.shared:
            stays_if_new = home is None and at.name not in avoid and self.fleet.welcomes(at)
            spared = at if stays_if_new and not at.most_sessions else None
            asked = self._ask(session_id, session, located, now, opens=True, spared=spared)
            if asked is not None:
                return asked
        if (home is None or is_unsure) and isinstance(located, Backend) and located.holds_pins:
            outcome = Outcome.LOCATED if located is at else Outcome.REHOMED
            return self._claim(Claim(session_id, located, Evidence.SESSION, located=True), outcome)
        if stays is not None:
            outcome = Outcome.PINNED if stays is at else Outcome.REHOMED
            return self._claim(Claim(session_id, stays), outcome, session)
        if self.fleet.welcomes(at) and at.name not in self._left(session, home, avoid):
            backend = at
        else:
            backend = self._elsewhere(session_id, session, home, now, avoid, reserve=reserve)
        outcome = Outcome.MOVED if home is not None else Outcome.PLACED
        if backend is not at:
            outcome = Outcome.REHOMED
        return self._claim(Claim(session_id, backend, Evidence.SESSION), outcome)

    def accept(self, session_id: str, at: Backend) -> Decision | None:
        """A CONNECT for a session of another backend has to be taken where it is; None: it cannot be."""
        if not at.takes_sessions:
            return None
        claim = Claim(session_id, at, Evidence.SESSION, reason=MoveReason.ALONE)
        return self._claim(claim, Outcome.MOVED)

    def _claim(self, claim: Claim, outcome: Outcome, session: Session | None = None) -> Decision:
        self.claims.add(claim)
        return Decision(claim.backend, Evidence.SESSION, outcome, session, claim=claim)

    def taken(self, claim: Claim, now: float) -> Session:
        """The backend has taken the CONNECT: the session lives there from now on. The caller opens it."""
        self.claims.end(claim)
        session = self.directory.assign(
            claim.session_id, claim.backend, now, claim.evidence, located=claim.located, reason=claim.reason
        )
        session.came(now)
        return session

    def resumed(self, claim: Claim, now: float) -> Session:
        """As `taken`, of a session whose connection is open already: another backend goes on with it."""
        self.directory.arrived(session := self.taken(claim, now))
        return session

    def elsewhere(self, session_id: str, at: Backend, now: float, avoid: Collection[str]) -> Decision | None:
        """Where a session goes with its state whose connection leads to `at`, as `connect`; None: nowhere.

        What a backend may still have of it, and where its first requests went, counts no more. Its place is
        reserved: of many that are lost at once none has arrived when the others are placed.
        """
        self.placement.forget(session_id.encode())
        if (session := self.directory.get(session_id, now)) is not None:
            session.left = ()
        try:
            decision = self.connect(session_id, at, now, Asked.IN_VAIN, avoid, reserve=True)
        except NoBackend:
            return None
        return decision if isinstance(decision, Decision) else None

    def refused(self, claim: Claim) -> None:
        """The CONNECT was refused or was not sent: nothing has happened."""
        self.claims.end(claim)

    def sweep(self, now: float) -> None:
        """Forget what has expired; called every few seconds."""
        self.engines.sweep(now)
        self.directory.sweep(now)

    def _ask(
        self,
        session_id: str,
        session: Session | None,
        located: Located,
        now: float,
        *,
        opens: bool,
        spared: Backend | None = None,
    ) -> Locate | None:
        """Whether anybody has to be asked before a session is placed or moved.

        `opens`: the request opens a connection. Any other that names an announced session comes behind its
        first connection, which then another proxy has seen. So has one that reconnects a while later. One at
        `spared` stays there whether it is new or lives there; where sessions are limited that matters.
        """
        auto = self.locate is LocateMode.AUTO
        is_new = auto and session is not None and session.announced and opens and now - session.since < _JUST
        is_ours = not self.shared or (auto and self.sole)  # no other proxy's word is needed
        if located is not Asked.NOT_YET or (is_ours and is_new):
            return None
        able = tuple([backend for backend in self.fleet if backend.holds_pins])
        if not able or (auto and len(able) == 1 and not able[0].most_sessions):
            return None
        has_home = session is not None and session.backend is not None and not session.is_unsure
        if self.locate is LocateMode.NEVER or has_home:
            able = ()
        if self.is_alone:
            able = self.directory.past.may_be_at(able, session_id, now, sole=self.sole)
        if spared is not None:
            able = tuple([backend for backend in able if backend is not spared])
        if is_ours and not able:
            return None
        return Locate(session_id, able, is_new)

    def _is_told(self, session_id: str, now: float, located: Located) -> bool:
        """Whether it is known where the session of a guess is, or that its page has just announced it."""
        session = self.directory.get(session_id, now)
        tells = session is not None and (session.backend is not None or now - session.since < _JUST)
        return tells or isinstance(located, Backend) or self.claims.at(session_id) is not None

    def _is_in_vain(self, session_id: str, now: float, located: Located) -> bool:
        """Whether it could not be found out who holds a session, and nobody has told meanwhile."""
        if located is not Asked.IN_VAIN:
            return False
        session = self.directory.get(session_id, now)
        return session is None or session.backend is None

    def _pinned(self, hints: Hints, avoid: Collection[str]) -> Backend | None:
        """The backend of the browser's pin, if it holds pins and is not to be avoided."""
        pinned = self.fleet.by_token(hints.pin) if hints.pin else None
        return pinned if pinned is not None and pinned.holds_pins and pinned.name not in avoid else None

    def _by_pin(self, hints: Hints, now: float, avoid: Collection[str]) -> Decision:
        """A handshake that names no session."""
        pinned = self._pinned(hints, avoid)
        if pinned is not None and pinned.takes_sessions and not pinned.outdated:
            return Decision(pinned, Evidence.PIN_COOKIE, Outcome.PINNED)
        backend = self._place(hints.client, now, avoid, reserve=True)
        return Decision(backend, Evidence.CLIENT, Outcome.PLACED)

    def _elsewhere(
        self,
        session_id: str,
        session: Session | None,
        home: Backend | None,
        now: float,
        avoid: Collection[str] = (),
        *,
        reserve: bool = False,
    ) -> Backend:
        """A backend for a session that cannot stay; its home, if nobody else takes it and it still may."""
        try:
            left = self._left(session, home, avoid)
            return self._place(session_id.encode(), now, left, reserve=reserve)
        except NoBackend:
            if home is not None and home.holds_pins:
                return home
            raise

    def _left(self, session: Session | None, home: Backend | None, avoid: Collection[str]) -> set[str]:
        return {*avoid, *(session.left if session else ()), *((home.name,) if home else ())}

    def _place(self, key: bytes, now: float, avoid: Collection[str], *, reserve: bool = False) -> Backend:
        backend = self.placement.place(key, self.fleet, now, avoid=avoid, reserve=reserve)
        if backend is None:
            raise NoBackend("no backend takes new sessions")
        return backend

    def __repr__(self) -> str:
        return f"<Router {self.fleet!r} {self.directory!r} {self.engines!r}>"
