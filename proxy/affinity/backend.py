"""One backend: who it is, how it is, what the operator wants of it, and what it carries.

`Fleet` creates and owns them. Health changes only through `Fleet.observe`, the operator's wish only
through `Fleet.set_admin_state`; whether it takes sessions or holds pins is derived.
"""

from enum import Enum

from proxy.affinity.health import Health, HealthRules, Verdict
from proxy.tls import Trust

_PROMPT = 0.5  # seconds in which an instance answers something, unless its app blocks the event loop


class AdminState(Enum):
    """The operator's wish for a backend."""

    READY = "ready"
    DRAIN = "drain"  # no new sessions, pinned ones go on
    MAINTENANCE = "maintenance"  # nothing goes there


_DOWN, _MAINTENANCE = Verdict.DOWN, AdminState.MAINTENANCE  # looked at with every request


class Backend:
    """One Chainlit instance behind the proxy, the unit we pick; compared by identity."""

    __slots__ = (
        "admin_state",
        "arrived",
        "claimed",
        "gone",
        "health",
        "host",
        "joined",
        "last_resort",
        "leaving",
        "lives",
        "met_at",
        "most_sessions",
        "name",
        "outdated",
        "path",
        "pid",
        "port",
        "quiet_since",
        "sessions",
        "starting",
        "tls",
        "token",
        "tunnels",
        "unanswered",
        "weight",
    )

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        path: str = "",
        weight: float = 1.0,
        tls: Trust | None = None,
        token: bytes = b"",
        rules: HealthRules | None = None,
        now: float = 0.0,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.path = path  # of its unix socket; then host and port are empty
        self.weight = weight
        self.tls = tls  # None for plain HTTP
        self.token = token
        self.health = Health(rules or HealthRules(), now)
        self.joined = now  # since when it is in the fleet, where it is
        self.admin_state = AdminState.READY
        self.gone = False  # set when it left the fleet
        self.last_resort = False  # set by the fleet while it answers badly and nobody answers well
        self.leaving = False  # set while it is drained to leave the fleet
        self.lives = 0  # times that it is known to have been restarted; by the fleet
        self.met_at = ""  # where its name led to when it last answered a probe; by the fleet
        self.starting = False  # set until a local replica is ready: that nobody listens yet is no news
        self.most_sessions = 0  # that it may have, 0 for any number; by the fleet
        self.outdated = False  # set while a rollout is to replace it; others are preferred for sessions
        self.pid: int | None = None  # of a local replica
        self.sessions = 0  # open or placed; written by the Directory
        self.arrived = 0  # of those, how many ever came to count; by the Directory
        self.claimed = 0  # CONNECT packets that are on their way there; by Claims
        self.tunnels = 0  # open; written by the data plane
        self.unanswered = 0  # requests under way that any app answers at once; by the doors below
        self.quiet_since = now  # of use while there are any: since when it has answered none of them

    @property
    def url(self) -> str:
        """Where it listens."""
        if self.path:
            return f"http+unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    @property
    def authority(self) -> str:
        """What our own requests to it have in `Host`: the final dot of a name is for the resolver alone."""
        return "localhost" if self.path else self.url.partition("//")[2].replace(".:", ":")

    @property
    def takes_sessions(self) -> bool:
        """Whether a new session may be placed here."""
        return self.is_fit or (self.last_resort and self.holds_pins)

    @property
    def is_full(self) -> bool:
        """Whether it has as many sessions as it may have, with those that are on their way."""
        return 0 < self.most_sessions <= self.sessions + self.claimed

    def asked(self, now: float) -> None:
        """It gets a request that any app answers at once: no poll that waits, no upload, no action."""
        if not self.unanswered:
            self.quiet_since = now
        self.unanswered += 1

    def answered(self, now: float) -> None:
        """It has answered one of them: it does not stand still."""
        self.unanswered -= 1
        self.quiet_since = now

    def given_up(self) -> None:
        """Nobody waits any more for an answer to one of them."""
        self.unanswered -= 1

    def is_quiet(self, now: float) -> bool:
        """Whether it seems to stand still, though no probe may have failed yet: nobody new goes there."""
        if self.unanswered and now - self.quiet_since > _PROMPT:
            return True
        return self.health.failures > 0 and self.health.in_doubt

    @property
    def is_fit(self) -> bool:
        """Whether it is healthy, and meant to take new sessions."""
        return (
            self.health.verdict is Verdict.HEALTHY and self.admin_state is AdminState.READY and not self.gone
        )

    @property
    def holds_pins(self) -> bool:
        """Whether what is pinned here may go on here."""
        return self.health.verdict is not _DOWN and self.admin_state is not _MAINTENANCE and not self.gone

    def __repr__(self) -> str:
        return (
            f"<Backend {self.name} {self.url} {self.health.verdict.value} {self.admin_state.value}"
            f" sessions={self.sessions} tunnels={self.tunnels}>"
        )
