"""CONNECT packets that are on their way: where a session will be, once its backend has taken it.

A client's word opens no session. From the moment in which it is decided where a CONNECT goes until the
backend has answered, the session is *claimed*: another CONNECT and every request that names it go there too,
but it counts at no backend, and nothing makes room for it in the directory. If the backend takes it (a `40`
packet: see `answers`) it is settled and opened; if not, nothing has happened.
"""

from proxy.affinity.backend import Backend
from proxy.affinity.evidence import Evidence
from proxy.affinity.session import MoveReason


class Claim:
    """One of them; made by the Router, ended by whoever sent the CONNECT."""

    __slots__ = ("backend", "evidence", "located", "reason", "said", "session_id")

    def __init__(
        self,
        session_id: str,
        backend: Backend,
        evidence: Evidence | None = None,
        *,
        located: bool = False,
        reason: MoveReason | None = None,
    ) -> None:
        """The rest is what `Directory.assign` is told."""
        self.session_id = session_id
        self.backend = backend
        self.evidence = evidence
        self.located = located
        self.reason = reason
        self.said = False  # whether the POST that bore it was answered: its backend has heard it

    def __repr__(self) -> str:
        return f"<Claim at {self.backend.name}>"


class Claims:
    """All of them, by session; owned by the Router. As many as there are CONNECT packets under way."""

    __slots__ = ("_by_session",)

    def __init__(self) -> None:
        self._by_session: dict[str, list[Claim]] = {}

    def add(self, claim: Claim) -> Claim:
        """A CONNECT is about to be sent."""
        self._by_session.setdefault(claim.session_id, []).append(claim)
        claim.backend.claimed += 1
        return claim

    def end(self, claim: Claim) -> None:
        """It was answered, or will not be; ending one twice does no harm."""
        claims = self._by_session.get(claim.session_id, [])
        if claim in claims:
            claims.remove(claim)
            claim.backend.claimed -= 1
            if not claims:
                del self._by_session[claim.session_id]

    def at(self, session_id: str) -> Backend | None:
        """Where the session will be: that of its oldest claim which may still succeed."""
        claims = self._by_session.get(session_id, ())
        return next((claim.backend for claim in claims if claim.backend.holds_pins), None)

    def __contains__(self, claim: Claim) -> bool:
        return claim in self._by_session.get(claim.session_id, ())

    def __len__(self) -> int:
        return sum(map(len, self._by_session.values()))

    def __repr__(self) -> str:
        return f"<Claims {len(self)}>"
