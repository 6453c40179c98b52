"""What may live at the backends without an entry in the directory.

A session is at a backend because a client connected there. Where no other proxy leads to the backends, that
was through this one, and the session had an entry; or it was before the backend came to us, as with all of
them when this proxy started. What connected before has been away since, and Chainlit ends a session that is
away for `session_timeout`. So a backend that we have had for longer holds none that we do not know, but for
those whose entry was given up: their ids are kept a while longer, and who comes back under one is asked for.
Where there may be other proxies nothing here counts.
"""

from collections.abc import Iterable

from proxy.affinity.backend import Backend

_NOTICED = 60.0  # seconds: Engine.IO misses a client after 45, and may have to wait for a blocked app
_MARGIN = 1.25  # no two clocks agree, and the proxy before us may have served a while when we had started


class Past:
    """The ids that had an entry, and how long a backend may hold others; owned by the Directory.

    Ids are kept in two halves. The older one is let go of as a whole: while any of it may live, nothing is
    known of those without an entry.
    """

    __slots__ = ("_before", "_lately", "_lost", "_until", "most", "overlap", "session_timeout")

    def __init__(self, most: int, session_timeout: float) -> None:
        self.most = most  # ids
        self.session_timeout = session_timeout  # seconds
        self.overlap = 0.0  # seconds that a proxy keeps its clients while another has taken its place
        self._lately: set[int] = set()  # hashes: of two ids that have the same one, one is asked for in vain
        self._before: set[int] = set()
        self._until = 0.0  # until when those of both may live
        self._lost = 0.0  # until when those may live that are not kept any more

    def forgot(self, session_id: str, expires: float) -> None:
        """The entry of a session that had connected is given up; it would have expired then."""
        self._until = max(self._until, expires + _NOTICED)
        self._lately.add(hash(session_id))
        if len(self._lately) * 2 > self.most:
            if self._before:
                self._lost = self._until
            self._before, self._lately = self._lately, set()

    def may_be_at(
        self, backends: Iterable[Backend], session_id: str, now: float, *, sole: bool
    ) -> tuple[Backend, ...]:
        """Those of `backends` at which a session without an entry may live; `sole`: they are our replicas."""
        known = hash(session_id)
        if now < self._lost or known in self._lately or known in self._before:
            return tuple(backends)
        if sole:
            return ()
        longest = self.session_timeout * _MARGIN + self.overlap + _NOTICED
        return tuple(backend for backend in backends if now < backend.joined + longest)

    def __repr__(self) -> str:
        return f"<Past {len(self._before) + len(self._lately)} ids>"
