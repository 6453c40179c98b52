"""The fleet: the backends there are, by name and by pin, and the one door through which they change.

Listeners (the data plane closes connections, the log speaks) are told of the first verdict on each backend,
of every flip of one, of one that becomes a last resort or is none any more, and of every change of the
operator's wish, after the change is whole. Where no backend is healthy and ready, those that answer at all
take new sessions: badly is better than not.
"""

from collections.abc import Callable, Iterator, Sequence

from proxy.affinity.backend import AdminState, Backend
from proxy.affinity.health import HealthRules, Observation, Verdict
from proxy.affinity.pins import pin_token
from proxy.config import Config
from proxy.tls import Trust

Listener = Callable[[Backend, str], None]

_MOST_LEFT = 1000  # names that are remembered of backends that have left


class Fleet:
    """All backends; created by the app, read by the router, changed here only."""

    __slots__ = ("_by_name", "_by_token", "_left", "_listeners", "_most_sessions", "_rules", "_secrets")

    def __init__(self, rules: HealthRules, *secrets: bytes) -> None:
        """Pins are made with the first of `secrets` and read with any."""
        self._rules = rules
        self._secrets = secrets or (b"",)
        self._by_name: dict[str, Backend] = {}
        self._by_token: dict[bytes, Backend] = {}
        self._left: dict[str, None] = {}  # names of those that have, the newest last
        self._listeners: list[Listener] = []
        self._most_sessions = 0

    def add(
        self,
        name: str,
        host: str,
        port: int,
        *,
        now: float,
        path: str = "",
        weight: float = 1.0,
        tls: Trust | None = None,
    ) -> Backend:
        """Take a backend in; it is down until it answers. Raises ValueError for a known name."""
        if name in self._by_name:
            raise ValueError(f"backend {name} is known already")
        backend = Backend(name, host, port, path=path, weight=weight, tls=tls, rules=self._rules, now=now)
        backend.most_sessions = self._most_sessions
        self._by_name[name] = backend
        self._left.pop(name, None)
        self._give_tokens(backend)
        return backend

    def _give_tokens(self, backend: Backend) -> None:
        tokens = [pin_token(backend.name, secret) for secret in self._secrets]
        backend.token = tokens[0]
        self._by_token.update(dict.fromkeys(tokens, backend))

    def remove(self, backend: Backend) -> None:
        """Let a backend go: its pins are void from now on."""
        del self._by_name[backend.name]
        for secret in self._secrets:
            del self._by_token[pin_token(backend.name, secret)]
        backend.gone = True
        self._left[backend.name] = None
        if len(self._left) > _MOST_LEFT:
            del self._left[next(iter(self._left))]
        self._find_last_resorts()
        self._tell(backend, "left the fleet")

    def change(
        self,
        backend: Backend,
        host: str,
        port: int,
        *,
        path: str,
        weight: float,
        tls: Trust | None,
        now: float,
    ) -> bool:
        """What is configured of a backend may have changed; return whether it is somewhere else now."""
        moved = (backend.host, backend.port, backend.path) != (host, port, path)
        backend.host, backend.port, backend.path = host, port, path
        backend.weight, backend.tls = weight, tls
        if moved:
            backend.joined = now
            self._tell(backend, f"is at {backend.url} now")
        return moved

    def order(self, names: Sequence[str]) -> None:
        """Have the backends in this order; those it does not name come last."""
        places = {name: place for place, name in enumerate(names)}
        self._by_name = dict(sorted(self._by_name.items(), key=lambda item: places.get(item[0], len(places))))

    def configure(self, config: Config) -> None:
        """Judge by the configured rules, make the configured pins, and keep to the limit of sessions."""
        self._most_sessions = config.balance.most_sessions
        for backend in self:
            backend.most_sessions = self._most_sessions
        health = config.health
        self.set_rules(HealthRules(fall=health.fall, rise=health.rise, evict_after=health.evict_after))
        self.set_secrets(*(secret.get_secret_value().encode() for secret in config.affinity.secret or ()))

    def set_rules(self, rules: HealthRules) -> None:
        """Judge by other rules from now on; verdicts and what they rest on stay."""
        self._rules = rules
        for backend in self:
            backend.health.rules = rules

    def set_secrets(self, *secrets: bytes) -> None:
        """Make pins with the first of `secrets` and read them with any of these only."""
        self._secrets = secrets or (b"",)
        self._by_token = {}
        for backend in self:
            self._give_tokens(backend)

    def listen(self, listener: Listener) -> None:
        """Have `listener(backend, what happened)` called after every change."""
        self._listeners.append(listener)

    def observe(self, backend: Backend, observation: Observation, now: float, reason: str = "") -> bool:
        """Take one observation, and why it is no good one; return whether the verdict flipped."""
        health = backend.health
        first = not health.met and not backend.starting
        alone = not any(other.is_fit for other in self if other is not backend)
        denied, refused, returned = health.denied, health.refuses, health.returned
        flipped = health.observe(observation, now, reason, alone=alone)
        backend.lives += health.returned != returned
        was_last_resort = backend.last_resort
        if flipped or health.denied is not denied:
            self._find_last_resorts()
        given_up = refused and not health.refuses and health.verdict is Verdict.DOWN
        if flipped or first or given_up or backend.last_resort is not was_last_resort:
            why = f": {health.reason}" if health.reason else ""
            self._tell(backend, f"is {health.verdict.value}{why}")
        return flipped

    def met(self, backend: Backend, address: str) -> None:
        """It answers where its name led to: elsewhere than before it is another process."""
        where = f"{address}:{backend.port}{backend.path}"
        backend.lives += bool(backend.met_at) and where != backend.met_at
        backend.met_at = where

    def stood(self, gap: float) -> None:
        """This process stood still for `gap` seconds: nobody was silent in them."""
        for backend in self:
            backend.health.stood(gap)
            backend.quiet_since += gap

    def _find_last_resorts(self) -> None:
        someone = any(backend.is_fit for backend in self)
        for backend in self:
            backend.last_resort = (
                not someone
                and backend.admin_state is AdminState.READY
                and backend.health.verdict is Verdict.DEGRADED
                and backend.health.denied
            )

    def set_admin_state(self, backend: Backend, state: AdminState) -> None:
        """Set the operator's wish."""
        if backend.admin_state is not state:
            backend.admin_state = state
            self._find_last_resorts()
            self._tell(backend, f"is set to {state.value}")

    def move(self, backend: Backend, host: str, port: int) -> None:
        """A local replica came back on another port."""
        backend.host = host
        backend.port = port

    def welcomes(self, backend: Backend) -> bool:
        """Whether a new session whose transport is at `backend` may stay there.

        Not at an outdated one while there is another: it would have to move again soon. Not at a full one
        while another has room.
        """
        if backend.is_full and self.room:
            return False
        if not backend.outdated:
            return backend.takes_sessions
        return backend.takes_sessions and not any(
            other.takes_sessions and not other.outdated for other in self
        )

    @property
    def room(self) -> int:
        """How many more sessions there may be at those that take any, where they may have so many only."""
        return sum(max(0, each.most_sessions - each.sessions) for each in self if each.takes_sessions)

    def by_token(self, token: bytes) -> Backend | None:
        """The backend that a pin names."""
        return self._by_token.get(token)

    def get(self, name: str) -> Backend | None:
        """The backend called `name`."""
        return self._by_name.get(name)

    def has_left(self, name: str) -> bool:
        """Whether a backend of that name was here and is no more: none of its sessions can be there."""
        return name in self._left

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def _tell(self, backend: Backend, event: str) -> None:
        for listener in self._listeners:
            listener(backend, event)

    def __repr__(self) -> str:
        return f"<Fleet {list(self._by_name.values())}>"
