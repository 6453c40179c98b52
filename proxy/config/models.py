"""The settings of the proxy: frozen models, replaced whole when the file is read again.

Rules: attribute = YAML key = heading in `docs/configuration.md`. Seconds are floats, sizes are bytes.
Each field says what it does and, where it is not obvious, why its default is what it is; the
reference is made from these words. A check of two fields together stands at the later one, so that
it runs whatever else is wrong. Nothing here knows YAML, files or the environment.
"""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from proxy.config import sections as s
from proxy.config import values as v
from proxy.config.address import UNIX, Address, backend_name
from proxy.config.problems import got
from proxy.config.tls_settings import BackendTlsSettings, TlsSettings


class AdminSettings(s.Settings):
    """The listener for operators and monitoring."""

    # Declared first: the check of `listen` has to know it.
    token: v.Tokens | None = None
    """The bearer token for everything except /healthz, /readyz and /metrics. Without one `admin.listen` must
    be a loopback address. Every token in a list is valid."""
    hook_token: v.Tokens | None = None
    """A token for `chainlit-proxy hook`, which can only drain a backend, make it ready and view it; from a
    backend's address, only that one. Requires `admin.token`, and must differ from it."""
    listen: v.OneAddress = Address("127.0.0.1", 9901)
    """Where metrics, health and the API are served. If 9901 is taken and you name no other port, `run` takes
    a free one."""
    socket: s.AdminSocketSettings = s.AdminSocketSettings()

    @field_validator("hook_token")
    @classmethod
    def _is_another(cls, value: v.Tokens | None, info: ValidationInfo) -> v.Tokens | None:
        tokens = info.data.get("token", "unreadable")
        if value is None or tokens == "unreadable":
            return value
        if tokens is None:
            raise ValueError("needs admin.token: without it everybody may do everything")
        if set(value) & set(tokens):
            raise ValueError("must be another token than admin.token, which may do everything")
        return value

    @field_validator("listen")
    @classmethod
    def _needs_token(cls, value: Address, info: ValidationInfo) -> Address:
        if not value.is_loopback and info.data.get("token", "unreadable") is None:
            message = "must be a loopback address such as 127.0.0.1:9901, because admin.token is not set"
            raise ValueError(message + got(str(value)))
        return value


class BackendSettings(s.Settings):
    """One entry of `backends`: a Chainlit instance that you run."""

    url: v.BackendUrl
    """Where the instance listens, without a path."""
    name: v.BackendName = Field(
        default_factory=lambda data: backend_name(data.get("url", "")), validate_default=True
    )
    """The backend's name in pins, metrics and logs. A backend that keeps its name keeps its sessions,
    wherever it listens."""
    weight: v.Weight = 1.0
    """Its share of new sessions: 2 gets twice as many as 1."""
    tls: BackendTlsSettings = BackendTlsSettings()

    @field_validator("tls")
    @classmethod
    def _needs_https(cls, value: BackendTlsSettings, info: ValidationInfo) -> BackendTlsSettings:
        if value != BackendTlsSettings() and not info.data.get("url", "https:").startswith("https:"):
            raise ValueError("must be left out, because the url does not begin with https")
        return value

    @property
    def address(self) -> Address:
        """Where it listens; the host of an IPv6 address is without its brackets."""
        if self.url.startswith(UNIX):
            return Address(path=self.url.removeprefix(UNIX))
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return Address(host.strip("[]"), int(port))


class CookieSettings(s.Settings):
    """The pin cookie, one per browser."""

    name: v.CookieName = "chainlit_pin"
    """The cookie with the backend of a browser's newest session. Never forwarded to a backend."""
    enabled: v.Flag = True
    """Whether the cookie is set and read. No session depends on it; it keeps requests to an app's own routes
    at one backend."""


class AffinitySettings(s.Settings):
    """How a request finds the backend that holds its session."""

    cookie: CookieSettings = CookieSettings()
    secret: v.Secrets | None = None
    """The key of the pins, the same on every proxy of a site. Without it anyone can make a pin that leads to
    a backend of their choice. In a list the first secret makes pins, and all of them read pins."""
    locate: v.Locate = v.Locate.AUTO
    """Which backends are asked for a session that the directory does not know. `auto`: those that may hold
    it. `always`: all, at handshakes too, for several proxies without Redis. `never`: none, the session counts
    as new."""
    alone: v.Flag = False
    """Whether this proxy is the only way to its backends, as with `run`. Once it has been up longer than
    sessions live, it does not ask for unknown ids. Never set it with a second proxy: conversations would
    start over."""
    locate_timeout: v.Seconds = 2.0
    """Seconds in which backends must answer that question."""
    locate_questions: v.Count = 1000
    """Questions under way at once. Requests above that follow their other evidence."""
    locate_connections: v.Count = 16
    """Connections to one backend for these questions."""
    roots: v.RootPaths = ()
    """Chainlit's root paths. By default the proxy learns them from the first Socket.IO session below each.
    Name them if other requests may come first."""
    session_timeout: v.Seconds = 3600.0
    """Seconds that a session is remembered after its last connection closed. Set it to Chainlit's own
    session_timeout."""
    directory: s.DirectorySettings = s.DirectorySettings()
    hand_over: v.HandOver = v.HandOver.AUTO
    """Whether clients keep their connection and move to another backend when theirs dies, drains or is
    replaced. `auto`: if sessions are shared. `always`: with any backends. `never`: clients reconnect."""
    hold: v.Hold = 10.0
    """Seconds that clients and requests wait while no backend can take them, instead of an error; 0 turns
    this off. At most 1000 requests wait at once, 250 of one client."""
    linger: v.SecondsOrZero = 15.0
    """Seconds that the backend's side of a websocket stays after its client is lost, to deliver the app's
    messages when it reconnects; 0 turns this off. Keep it below Engine.IO's 20."""
    linger_bytes: v.Bytes = 1_048_576
    """Bytes kept for one session meanwhile. A session with more is dropped."""
    linger_sessions: v.Count = 1000
    """Sessions kept this way at once; above that the oldest is dropped."""


class BalanceSettings(s.Settings):
    """Which backend gets a new session."""

    bound: v.Factor = 1.25
    """No backend gets a new session while it holds more than this many times the mean."""
    slow_start: v.SecondsOrZero = 10.0
    """Seconds in which the share of a newly healthy backend grows to its full weight; 0 gives it at once."""
    rebalance: v.Flag = False
    """Whether idle sessions move, one by one, to an added backend with less than its share. They start over
    unless sessions are shared."""
    most_sessions: v.CountOrZero = 0
    """Sessions that a backend may have at once, 0 for any number. When all are full, page loads wait and show
    their place. Each proxy counts only its own."""
    most_answers: v.CountOrZero = 0
    """Messages that an instance answers at once, 0 for any number. Others wait, and the chat shows their
    place. For shared sessions: `run` and `replica` pass it to their instances."""
    queue: v.Count = 1000
    """How many may wait: page loads at each proxy, messages at each instance. Others are asked to try
    again."""


class HealthSettings(s.Settings):
    """How backends are probed and judged."""

    type: v.HealthType = "http"
    """The kind of probe. `http` requests health.path, `engineio` opens and closes an Engine.IO session, `tcp`
    only connects, and `none` judges by traffic alone."""
    path: v.UrlPath = "/health"
    """The path of an http probe. Chainlit answers the default."""
    host: v.ProbeHost | None = None
    """The Host of http and engineio probes. By default that of the backend's url."""
    status: v.Statuses = ("200-399",)
    """The statuses of a healthy answer to an http probe. With others below 500 a backend is degraded; with
    `run` it is healthy, unless this is set."""
    secret: v.Secrets | None = None
    """A secret of your instances and proxies. Backends that do not answer a challenge with it are down. Start
    them with `replica`, or call `chainlit_proxy.share`, with the same one. Every secret in a list is valid.
    Not used by `run`."""
    interval: v.Seconds = 2.0
    """Seconds between two probes of a backend."""
    timeout: v.Seconds = 2.0
    """Seconds that a probe may take."""
    fall: v.Count = 3
    """Failed probes in a row that make a backend degraded: it keeps its sessions, and gets no new ones. A
    backend that refuses connections is down at once."""
    rise: v.Count = 2
    """Good probes in a row that make a backend healthy again. One is enough while no other backend takes
    sessions."""
    evict_after: v.Seconds = 45.0
    """Seconds without any answer after which a degraded backend is down and its sessions move."""
    listen_path: v.UrlPath | None = None
    """A path on the client listeners that reports the proxy's own health, such as /.chainlit-proxy/healthz:
    200 while it serves, 503 once it shuts down. The app cannot use this path."""

    @field_validator("secret")
    @classmethod
    def _needs_http(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("type", "http") != "http":
            raise ValueError("must be left out, unless health.type is http: no other probe can ask for it")
        return value


class ForwardedSettings(s.Settings):
    """The proxies that are believed about the client's address, scheme and host."""

    trusted: v.Networks = tuple(map(v.network, ("127.0.0.1/32", "::1/128")))
    """Networks of the proxies whose X-Forwarded-For, -Proto, -Host and Forwarded are believed. For all others
    these fields are replaced or dropped. An empty list trusts no one."""
    hops: v.CountOrZero = Field(default=0, validate_default=True)
    """How many addresses the proxies in front add to X-Forwarded-For, if you cannot name their networks: 2
    for a cloud balancer that adds the client's and its own. Safe only if nobody in `trusted` can reach this
    proxy by a shorter way. 0 goes by the networks."""
    proxy_protocol: v.Flag = False
    """Whether connections of these proxies, and on unix sockets, begin with a PROXY protocol header, version
    1 or 2. It is then required. From others it is refused."""

    @field_validator("hops")
    @classmethod
    def _counts_for_somebody(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("trusted", "unreadable") == ():
            raise ValueError("must be 0, because forwarded.trusted is empty: nobody is believed" + got(value))
        return value


class Config(s.Settings):
    """The whole configuration, made by `load` and handed down by `app`."""

    listen: v.Addresses = (Address("0.0.0.0", 8000),)  # noqa: S104 - a proxy is there to be reached
    """Where clients connect. Port 0 takes a free one. The default of `run` is 127.0.0.1:8000. With tls.acme
    domains it is 0.0.0.0:443 and http://0.0.0.0:80."""
    socket: s.SocketSettings = s.SocketSettings()
    reuse_port: v.Flag = False
    """Whether other processes of the same user may listen on the same addresses (SO_REUSEPORT). Takes effect
    at the start."""
    admin: AdminSettings = AdminSettings()
    backends: Annotated[
        tuple[
            Annotated[
                BackendSettings, v.Allowed("a url such as http://127.0.0.1:8001, or a mapping with a url")
            ],
            ...,
        ],
        v.Allowed(
            "a list of urls such as - http://127.0.0.1:8001, or of mappings such as "
            '- {name: a, url: "http://127.0.0.1:8001"}'
        ),
    ] = ()
    """The Chainlit instances, each a mapping or only its url. `serve` needs at least one, or discovery."""
    discovery: s.DiscoverySettings = s.DiscoverySettings()
    socketio_path: v.SocketioPaths = ("/ws/socket.io",)
    """Chainlit's Socket.IO endpoint. Compared with the end of a request's path, so a root path needs no
    setting."""
    affinity: AffinitySettings = AffinitySettings()
    balance: BalanceSettings = BalanceSettings()
    health: HealthSettings = HealthSettings()
    timeouts: s.TimeoutSettings = s.TimeoutSettings()
    limits: s.LimitSettings = s.LimitSettings()
    forwarded: ForwardedSettings = ForwardedSettings()
    log: s.LogSettings = s.LogSettings()
    otel: s.OtelSettings = s.OtelSettings()
    replicas: s.ReplicaSettings = s.ReplicaSettings()
    responses: s.ResponseSettings = s.ResponseSettings()
    sessions: s.SessionSettings = s.SessionSettings()
    tls: TlsSettings = TlsSettings()
    websocket: s.WebsocketSettings = s.WebsocketSettings()
