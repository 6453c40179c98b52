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
    """The bearer token that everything but /healthz, /readyz and /metrics asks for. Without one the listener
    has to stay on a loopback address. In a list each counts: add the new one, have everybody use it, then
    take the old one out."""
    hook_token: v.Tokens | None = None
    """A token that may drain a backend, make it ready and look at it, and nothing else: for `chainlit-proxy
    hook`, which runs beside the app. In a list each counts. It needs `admin.token`, and is another one."""
    listen: v.OneAddress = Address("127.0.0.1", 9901)
    """Where metrics, health and the API are served. Loopback, because by default there is no token."""
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
    """One entry of `backends`: a Chainlit instance that something else runs."""

    url: v.BackendUrl
    """Where the instance listens, without a path."""
    name: v.BackendName = Field(
        default_factory=lambda data: backend_name(data.get("url", "")), validate_default=True
    )
    """What the backend is called in pins, metrics and logs; without it host:port of its url, or the name of
    its socket without .sock. Pins are made from it: an instance that keeps its name keeps its sessions,
    wherever it listens."""
    weight: v.Weight = 1.0
    """Its share of the new sessions: with 2 it gets twice those of a backend with 1."""
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
    """The name of the cookie that holds the backend of a browser's newest session. It is never forwarded to a
    backend."""
    enabled: v.Flag = True
    """Whether the cookie is set and read. No session depends on it; it saves moves after a handshake, and an
    app's own routes keep meeting the same instance."""


class AffinitySettings(s.Settings):
    """How a request finds the instance that holds its session."""

    cookie: CookieSettings = CookieSettings()
    secret: v.Secrets | None = None
    """The key of the pins, the same on every proxy of a site. Without it pins still agree between proxies,
    but can be guessed. In a list the newest comes first: pins are made with it and read with any."""
    locate: v.Locate = v.Locate.AUTO
    """Whether the backends are asked for a session that the directory does not know: auto asks those where it
    may live, always asks all of them and at handshakes too, which several proxies without Redis need, never
    takes the session for new."""
    alone: v.Flag = False
    """Whether this proxy is the only way to its backends, as it always is for `run`. Once it has been up for
    longer than sessions live, it has seen all that are there, and asks for none that it has never seen. With
    a second proxy beside it conversations begin anew by that: only you know whether there is one."""
    locate_timeout: v.Seconds = 2.0
    """Seconds that the backends have to answer that question. They answer in a few milliseconds, unless an
    app blocks its event loop."""
    locate_questions: v.Count = 1000
    """Such questions under way at once, each about one session; equal ones are asked once. What is over it
    goes by the rest of its evidence. As many as the tabs that may connect again in the second after a
    restart."""
    locate_connections: v.Count = 16
    """Connections to one backend that these questions use at once; the others wait for one, within
    affinity.locate_timeout. An instance is one event loop, so more would not be faster."""
    roots: v.RootPaths = ()
    """The root paths of Chainlit (--root-path, or where it is mounted). By default they are learnt: from the
    first Socket.IO session below one on, and / until then. Name them where requests of a session may come
    before that, such as those of a tab that polls through a restart."""
    session_timeout: v.Seconds = 3600.0
    """Seconds that a session is remembered after its last connection closed. Chainlit's own session_timeout,
    which its generated config sets to 3600: set both to the same."""
    directory: s.DirectorySettings = s.DirectorySettings()
    hand_over: v.HandOver = v.HandOver.AUTO
    """Whether a client is handed over to another instance when its own dies, ends, is drained or replaced:
    its connection stays, and it does not notice. auto does so where sessions are shared, always tries it
    with any instances, never has clients connect anew."""
    hold: v.Hold = 10.0
    """Seconds that clients and requests are held while nobody can take them, in place of an error; 0 holds
    nobody. A client that is handed over is, until an instance has taken it; so are uploads, buttons and
    elements whose session is on its way to another instance, and all requests while no backend takes
    sessions, as with a single replica that restarts: pages, files, handshakes and websockets. At most 1000
    requests are held at once, 250 of one client, and no more of their bodies is read. Engine.IO's clients
    give up after 20."""
    linger: v.SecondsOrZero = 15.0
    """Seconds that the backend's side of a websocket is kept when its client is lost, so that what the app
    says meanwhile reaches it when it connects again; 0 lets go at once. Longer than a change of networks,
    shorter than the 20 after which a backend misses the answer to a ping."""
    linger_bytes: v.Count = 1_048_576
    """Bytes that are kept for one session meanwhile; with more it is let go of."""
    linger_sessions: v.Count = 1000
    """Sessions that are waited for at once; with one more the oldest is let go of. Each holds a connection to
    its backend."""


class BalanceSettings(s.Settings):
    """Which backend gets a new session."""

    bound: v.Factor = 1.25
    """No backend gets a new session while it holds more than this many times the mean of open sessions.
    Nearer to 1 is more even; further away keeps more browsers on the instance they know."""
    slow_start: v.SecondsOrZero = 10.0
    """Seconds in which the share of a backend that has just become healthy grows to its full weight; 0 gives
    it the full share at once. A Chainlit app imports and fills its caches in its first seconds."""
    rebalance: v.Flag = False
    """Whether sessions at rest are moved, one by one, to a backend that was added and holds less than its
    share. A moved session begins anew unless conversations outlive their instance."""
    most_sessions: v.CountOrZero = 0
    """Sessions that a backend may have at once, 0 for any number. Page loads beyond that of all backends wait
    in a queue, and are told their place. Each proxy counts the sessions that come through it."""
    most_answers: v.CountOrZero = 0
    """Messages that an instance answers at once, 0 for any number. The next wait for their turn, and the chat
    tells their place. For instances that share their sessions: `run` and `replica` tell it to them when
    they start."""
    queue: v.Count = 1000
    """How many wait at most, page loads at each proxy and messages at each instance; those beyond are told to
    try again. One client has a quarter of these places at most."""


class HealthSettings(s.Settings):
    """How backends are probed and judged."""

    type: v.HealthType = "http"
    """What a probe does: http asks for health.path, engineio opens an Engine.IO session and closes it, tcp
    only connects, none leaves the verdict to the traffic."""
    path: v.UrlPath = "/health"
    """What an http probe asks for. Chainlit answers this path itself, from its event loop."""
    host: v.ProbeHost | None = None
    """The Host of http and engineio probes, for an app that answers to its public name only
    (TrustedHostMiddleware). By default that of the backend's url."""
    status: v.Statuses = ("200-399",)
    """The statuses of good answers to an http probe. Any other below 500 shows that the process is there: the
    backend is degraded and keeps its sessions, and gets new ones only while no other takes them. With `run`
    all below 500 are good, unless this is set."""
    secret: v.Secrets | None = None
    """What only our instances and proxies know: with it a backend is believed to be one of them if it answers
    the challenge of each probe, and is down otherwise, whatever it answers. The instances have to be started
    by `replica` or call `share`, with the same secret. A list has each of them count, so that one can be
    replaced. It does not hold for `run`, which knows its replicas."""
    interval: v.Seconds = 2.0
    """Seconds between two probes of a backend."""
    timeout: v.Seconds = 2.0
    """Seconds that a probe may take."""
    fall: v.Count = 3
    """So many failed probes in a row make a backend that still accepts connections degraded: nobody new is
    placed there, its own sessions stay. One that refuses connections is down at once; a name that does not
    resolve or a missing route is silence."""
    rise: v.Count = 2
    """So many good probes in a row make a backend healthy again. Two, so that one lucky answer of a busy
    instance is not enough; one is, while no other backend takes sessions."""
    evict_after: v.Seconds = 45.0
    """Seconds without any answer after which a degraded backend is down and its sessions move. Until then its
    clients are kept from giving up, which they do by themselves after 45 (pings every 25, 20 of patience)."""
    listen_path: v.UrlPath | None = None
    """A path on the listeners of clients where the proxy tells its own health, for a balancer that can ask
    nowhere else, such as /.chainlit-proxy/healthz: 200 as long as it serves, 503 once it is to end. Whether
    there are backends makes no difference. It is no path of the app any more."""

    @field_validator("secret")
    @classmethod
    def _needs_http(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("type", "http") != "http":
            raise ValueError("must be left out, unless health.type is http: no other probe can ask for it")
        return value


class ForwardedSettings(s.Settings):
    """Whose word on the client's address, scheme and host is taken."""

    trusted: v.Networks = tuple(map(v.network, ("127.0.0.1/32", "::1/128")))
    """The networks of the proxies whose X-Forwarded-For, -Proto, -Host and Forwarded are believed, and whose
    X-Real-IP and the like are passed on; from anybody else they are replaced or dropped. An empty list
    believes nobody."""
    hops: v.CountOrZero = Field(default=0, validate_default=True)
    """How many addresses the proxies in front add to X-Forwarded-For, where their networks cannot all be
    named: a cloud's balancer that adds the client's and its own has 2. The client is then the one so far from
    the end, whatever is before it. It counts for connections from `trusted`, and there is safe only while
    nobody reaches this proxy by a shorter way. 0 goes by the networks."""
    proxy_protocol: v.Flag = False
    """Whether connections of these proxies, and those on unix sockets, begin with a PROXY protocol header of
    version 1 or 2 that names the client. They then have to, within timeouts.head, and before TLS. From
    anybody else it is refused."""

    @field_validator("hops")
    @classmethod
    def _counts_for_somebody(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("trusted", "unreadable") == ():
            raise ValueError("must be 0, because forwarded.trusted is empty: nobody is believed" + got(value))
        return value


class Config(s.Settings):
    """The whole configuration, made by `load` and handed down by `app`."""

    listen: v.Addresses = (Address("0.0.0.0", 8000),)  # noqa: S104 - a proxy is there to be reached
    """Where clients connect: a name is all the addresses that it has here. `:8000` and `"*:8000"` (in quotes)
    are 0.0.0.0:8000, every interface by IPv4; "[::]:8000" is IPv6. Port 0 takes any free one. The default of
    `run` is 127.0.0.1:8000. Where tls.acme names domains it is 0.0.0.0:443 and http://0.0.0.0:80. What begins
    with http:// stays plain beside TLS: it only leads to https, and answers the questions of tls.acme's
    authority."""
    socket: s.SocketSettings = s.SocketSettings()
    reuse_port: v.Flag = False
    """Whether other processes may listen on the same addresses (SO_REUSEPORT). With it a new proxy is started
    before the old one is stopped, and several share the work of one machine; all have to run as the same
    user. Takes effect at the start."""
    admin: AdminSettings = AdminSettings()
    backends: Annotated[
        tuple[Annotated[BackendSettings, v.Allowed("a url, or a mapping with at least one")], ...],
        v.Allowed("a list of urls, or of mappings with at least a url"),
    ] = ()
    """The Chainlit instances, one entry each: a mapping, or its url alone, as in `- http://127.0.0.1:8001`.
    `serve` needs at least one, or discovery."""
    discovery: s.DiscoverySettings = s.DiscoverySettings()
    socketio_path: v.SocketioPaths = ("/ws/socket.io",)
    """Where Chainlit's Socket.IO endpoint is. Compared with the end of a request's path, so that a root path
    needs no setting."""
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
