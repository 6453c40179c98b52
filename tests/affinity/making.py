"""Fleets and routers for tests: backends that are healthy from the start, and what happens to them."""

from collections.abc import Callable

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.decision import Decision, Outcome
from proxy.affinity.directory import Directory
from proxy.affinity.evidence import Evidence, Hints
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.pins import join_pin
from proxy.affinity.placement import Placement
from proxy.affinity.router import Router
from proxy.config.values import Locate

RULES = HealthRules(fall=1, rise=1, evict_after=45.0)


def fleet_of(*names: str, weight: float = 1.0) -> Fleet:
    """A fleet whose backends have all answered at 0."""
    fleet = Fleet(RULES)
    for at, name in enumerate(names):
        backend = fleet.add(name, "127.0.0.1", 8001 + at, weight=weight, now=0.0)
        fleet.observe(backend, Observation.ANSWERED, 0.0)
    return fleet


def backend_of(fleet: Fleet, name: str) -> Backend:
    """The backend called `name`, which there is."""
    backend = fleet.get(name)
    assert backend is not None
    return backend


def router_of(*names: str, locate: Locate = Locate.NEVER, size: int = 1000, bound: float = 1.25) -> Router:
    """A router over such a fleet; it asks no backend unless told to."""
    return Router(fleet_of(*names), Directory(size, 3600.0), Placement(bound), locate)


def kill(fleet: Fleet, name: str, now: float = 1.0) -> None:
    """The backend refuses connections."""
    fleet.observe(backend_of(fleet, name), Observation.REFUSED, now)


def silence(fleet: Fleet, name: str, now: float = 1.0) -> None:
    """The backend does not answer."""
    fleet.observe(backend_of(fleet, name), Observation.SILENT, now)


def revive(fleet: Fleet, name: str, now: float = 2.0) -> None:
    """The backend answers again."""
    fleet.observe(backend_of(fleet, name), Observation.ANSWERED, now)


def hints(
    session: str | None = None, cookie: str | None = None, pin: bytes | None = None, client: bytes = b"c"
) -> Hints:
    """What a client's fields tell."""
    return Hints(session, cookie, pin, client)


def told(answer: object) -> tuple[str, Evidence, Outcome]:
    """A decision's backend, evidence and outcome."""
    assert isinstance(answer, Decision)
    return answer.backend.name, answer.evidence, answer.outcome


def drain(router: Router, name: str) -> None:
    """The operator wants no new sessions there."""
    router.fleet.set_admin_state(backend_of(router.fleet, name), AdminState.DRAIN)


def maintain(router: Router, name: str) -> None:
    """The operator wants nothing there."""
    router.fleet.set_admin_state(backend_of(router.fleet, name), AdminState.MAINTENANCE)


def remove(router: Router, name: str) -> None:
    """The backend leaves the fleet."""
    router.fleet.remove(backend_of(router.fleet, name))


Happening = Callable[[Router, str], None]

# What may be with a backend that keeps its sessions, and with one that does not.
HOLDS: dict[str, Happening] = {
    "healthy": lambda router, name: None,
    "degraded": lambda router, name: silence(router.fleet, name),
    "drained": drain,
}
HOLDS_NOT: dict[str, Happening] = {
    "down": lambda router, name: kill(router.fleet, name),
    "in maintenance": maintain,
    "gone": remove,
}


def pinned(router: Router, name: str, sid: bytes = b"sid") -> bytes:
    """A sid with the pin of a backend."""
    return join_pin(backend_of(router.fleet, name).token, sid)
