"""The backend that was chosen for an exchange, and who counts it there meanwhile."""

from time import monotonic

from proxy.affinity.decision import Decision
from proxy.affinity.evidence import Kind
from proxy.dataplane.relay import Relay

_READS = (b"GET", b"HEAD")


class Chosen(Relay):
    """What an exchange does when its backend is decided, or decided anew."""

    _said_to: bytes | None = None  # what its backend calls the transport

    def choose(self, decision: Decision) -> None:
        """Take a decision; its Engine.IO session, or its backend, counts this request as under way."""
        if self.decision is not None:
            self._let_go()
        engine = decision.engine
        if engine is not None:
            engine.polls += 1
            self._said_to = self._said_to or engine.upstream_sid
        elif not self.status and self._is_prompt:
            self._asked = decision.backend
            decision.backend.asked(monotonic())
        self.decision = decision

    @property
    def _is_prompt(self) -> bool:
        """Whether any app answers it at once: it waits for no news, brings no upload and runs no action."""
        request = self.request
        return request.sid is None and (request.kind is Kind.SOCKETIO or request.head.method in _READS)

    def _let_go(self) -> None:
        """Nobody has it any more."""
        decision, self.decision = self.decision, None
        if self._asked is not None:
            self._asked.given_up()
            self._asked = None
        if decision is not None and decision.engine is not None:
            decision.engine.polls -= 1
            decision.engine.waiting.discard(self)
