"""Sessions on backends, and what is done with them, without connections."""

from collections.abc import Collection

from proxy.affinity.backend import Backend
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.session import Session


class ScriptedMoves:
    """Where each session is; who is sent away is gone at once."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.busy: set[Session] = set()
        self.gone: list[Session] = []
        self.forgotten: list[str] = []
        self.was_cut: list[str] = []

    def open(self, backend: Backend, count: int, prefix: str = "s") -> list[Session]:
        """Some sessions open on a backend."""
        opened = []
        for number in range(count):
            session = Session(f"{prefix}-{backend.name}-{number}", 0.0)
            session.backend = backend
            opened.append(session)
        self.sessions += opened
        backend.sessions += count
        return opened

    def sessions_on(self, backend: Backend) -> list[Session]:
        """As Moves."""
        return [session for session in self.sessions if session.backend is backend]

    hands_over = False

    def forget_placed(self, backend: Backend) -> None:
        """As Moves."""
        self.forgotten.append(backend.name)

    def at_rest(self, sessions: Collection[Session]) -> list[Session]:
        """As Moves."""
        return [session for session in sessions if session not in self.busy]

    def send_away(self, sessions: Collection[Session]) -> None:
        """As Moves."""
        for session in sessions:
            self.sessions.remove(session)
            self.gone.append(session)
            assert session.backend is not None
            session.backend.sessions -= 1

    def cut(self, backend: Backend, began: float) -> None:
        """As Moves."""
        self.was_cut.append(backend.name)

    def is_empty(self, backend: Backend) -> bool:
        """As Moves."""
        return not backend.holds_pins or not self.sessions_on(backend)


def healthy_fleet(*names: str) -> Fleet:
    """Backends that take sessions."""
    fleet = Fleet(HealthRules())
    for name in names:
        backend = fleet.add(name, "127.0.0.1", 1, now=0.0)
        fleet.observe(backend, Observation.ANSWERED, 0.0)
    return fleet
