"""What all sections of the configuration share, and some of them: see `models`."""

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from proxy.config import values as v
from proxy.config.problems import got
from proxy.config.span import Span


class Settings(BaseModel):
    """What all sections share: frozen, no key that is not known, no input in pydantic's own texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SocketSettings(Settings):
    """Who may connect, where listen names unix sockets."""

    mode: v.SocketMode = "666"
    """The permissions of the files, in octal digits. By default every user of this machine may connect, as to
    a port; the folder can be closed to others."""
    group: v.Given | None = None
    """The group that the files belong to, such as that of the web server in front. The user of the proxy has
    to be in it. Sockets that systemd opens are as its unit says."""

    @property
    def bits(self) -> int:
        """The mode as a number."""
        return int(self.mode, 8)


class AdminSocketSettings(SocketSettings):
    """Who may connect to it, where it is a unix socket."""

    mode: v.SocketMode = "600"
    """The permissions of the file, in octal digits. By default only the proxy's user may connect: without a
    token, who may connect may do everything."""
    group: v.Given | None = None
    """The group that the file belongs to, such as that of the operators."""


class DirectorySettings(Settings):
    """The table of sessions and their backends."""

    size: v.Count = 100_000
    """How many sessions are remembered; the one that was not used for longest is forgotten first. It is a
    cache: what it forgot is asked of the backends again."""
    redis: v.RedisUrl | None = None
    """The Redis or Valkey through which several proxies share the table, the same for all of them. It is
    asked only for what a proxy does not know, and while it does not answer each goes on alone. The url may
    hold a password, so it is never shown."""


class SessionSettings(Settings):
    """Conversations that outlive their instance."""

    shared: v.FlagOrAuto = "auto"
    """Whether the instances share their sessions. auto is true for `run`, which then starts its replicas so,
    and false for `serve`: there it only tells the proxy what the instances do."""
    store: v.Store = v.StoreUrl("sqlite")
    """Where `run` and `replica` keep sessions. sqlite is a file in the state folder of `run`, so that they
    outlive a restart; instances on several machines need Redis or Valkey."""
    notice: v.Text = "The answer was cut off because its server went away. Please ask again."
    """What a user reads whose answer was cut off when its instance died; empty: nothing."""
    retry_turn: v.Flag = False
    """Whether the message of such a turn is given to the new instance, once. What the turn had already done,
    a payment for instance, is then done twice."""
    files: v.File | None = None
    """A folder that all instances reach, in which uploaded files are kept. By default beside the file of
    sqlite, and with Redis in the store itself."""
    file_limit: v.BytesOrZero = 10_485_760
    """Bytes of the largest uploaded file that is copied to the folder or the store; a larger one stays on its
    instance alone. Files on the same disk are linked, whatever their size."""


class ReplicaSettings(Settings):
    """The instances that `run` starts, and how many are wanted: that is reckoned for those of `serve` too."""

    count: v.Replicas = Span(2, 2)
    """How many `run` starts, such as 4. With a range such as 2..8 it starts the lower number, and more of
    them as they are wanted."""
    answers: v.Count = 50
    """Answers under way at once that one instance carries. So many streams of 50 tokens a second keep it as
    busy as it should be; for an app that computes it is less."""
    sessions: v.Count = 2000
    """Open sessions that one carries. They cost little CPU; their memory, and how many are lost with one, are
    what bounds them."""
    late: v.Seconds = 0.1
    """Seconds that the median of the last five probes may take. If half of the instances are later, the event
    loops are full: then one carries less than these figures say."""
    spare: v.CountOrZero = 1
    """So many more are wanted than the work needs while anybody is there, so that the rest carries it when
    one dies."""
    calm: v.Seconds = 120.0
    """Seconds that fewer have to be enough before fewer are wanted. More are wanted at once."""
    start_timeout: v.Seconds = 120.0
    """Seconds that one has to load the app and answer, from the start of its process on; then it is killed.
    No more of them start at once than there are processors."""


class LimitSettings(Settings):
    """How much the proxy takes from clients."""

    head: v.HeadBytes = 32_768
    """Bytes of the head of a request. Chainlit spreads a large login over several cookies of 3000 characters
    each, so the 8192 of other proxies are too few."""
    inspect: v.Bytes = 1_048_576
    """Bytes of the largest JSON body that is read to find a session id; a larger one is passed on unread. Of
    an Engine.IO payload it is the most that is taken, if it is above 1048576."""
    packets: v.Count = 1000
    """Packets of one Engine.IO payload that a client sends by polling; more are answered 413. python-engineio
    takes 16 unless the app raises Payload.max_decode_packets."""
    headers: v.Count = 100
    """Header fields of a request; more are answered 431. A browser sends some 20, and each proxy in front
    adds a few."""
    body: v.BytesOrZero = 536_870_912
    """Bytes of the body of a request, chunk sizes included; a larger one is answered 413. 0 sets no limit.
    512 MiB, since Chainlit itself takes files of 500 MB unless its config says otherwise, and writes them to
    disk before it looks at their size."""
    connections: v.CountOrZero = 10_000
    """Connections of clients open at once, websockets among them; one more is answered 503 and closed. 0 sets
    no limit. Each takes one file descriptor, with its websocket two."""
    connections_per_client: v.CountOrZero = 1000
    """Connections that one address, or one /64 network in IPv6, has open at once; one more is answered 429
    and closed. 0 sets no limit. An address may be an office of hundreds; those in forwarded.trusted have no
    limit, so name the load balancer there."""
    requests_per_second: v.RateOrZero = 2000.0
    """Requests that one client may make per second, on average; more are answered 429. 0 sets no limit. One
    tab that polls makes some 50 while a text is streamed, so an office may have 40 of those at a time."""
    burst: v.Count = 10_000
    """Requests that a client may make at once before requests_per_second slows it down. A page of Chainlit
    loads some 50 files, so an office may load 200 of them at a time."""
    sessions_per_minute: v.CountOrZero = 3000
    """Socket.IO sessions that one client may open per minute, at once or over time; more are answered 429. 0
    sets no limit. After a failure all tabs of an office connect anew, each of them every five seconds."""
    questions_per_minute: v.CountOrZero = 600
    """Sessions that the backends are asked for on behalf of one client per minute, at once or over time;
    those that a backend holds do not count. What is over it goes by the rest of its evidence. 0 sets no
    limit. After a restart of the proxy each tab of an office names a session that has to be found."""
    http2_streams: v.Count = 100
    """Requests that a client may have under way at once on a connection in HTTP/2. Each counts as one of
    connections and connections_per_client while it is open, beside the connection itself."""
    http2_resets_per_second: v.Rate = 20.0
    """Requests per second that may be reset on a connection in HTTP/2 before their answer is whole, on
    average, and ten times as many at once; with more the connection ends. A page that is left resets all that
    it asked for."""
    http2_overhead: v.Bytes = 4096
    """Bytes per second of a connection in HTTP/2 that may be something else than requests and bodies, on
    average, and 65536 at once; with more it ends. A browser says next to nothing else, and what it says to
    take an answer is not counted."""

    opening_frames: v.Count = 64
    """Frames that a client may send on a Socket.IO websocket before it has connected to Chainlit; with more
    it is closed with code 1008. A client says three."""
    opening_bytes: v.HeadBytes = 262_144
    """Bytes that it may send before, its CONNECT packet included, which holds the user's environment. By
    polling the same two bounds hold for what is said to other namespaces first."""


class TimeoutSettings(Settings):
    """How long the proxy waits, all in seconds."""

    connect: v.Seconds = 2.0
    """Seconds to open a connection to a backend."""
    head: v.Seconds = 10.0
    """Seconds in which a client has to send the whole head of a request."""
    idle: v.Seconds = 75.0
    """Seconds that a client's connection stays open without a request. More than the 60 of common load
    balancers, so that one in front of the proxy closes first."""
    response: v.Seconds = 300.0
    """Seconds until a backend sends the head of its response. Long, because an app that blocks its event loop
    answers late and its users must not lose their session for that."""
    body: v.Seconds = 60.0
    """Seconds that a client may take between two pieces of a request's body."""
    write: v.Seconds = 60.0
    """Seconds in which a client that does not keep up has to take some of what it is sent. Each piece that it
    takes begins them anew."""
    tunnel_idle: v.Seconds = 90.0
    """Seconds that a websocket stays open without a byte in either direction. Twice the 45 after which
    Engine.IO itself takes the other side for gone."""
    pool_idle: v.Seconds = 4.0
    """Seconds that an unused connection to a backend is kept. Less than the 5 after which uvicorn closes it,
    so that no request meets a closing connection."""
    drain: v.SecondsOrZero = 300.0
    """Seconds in which the sessions of a backend that drains have to leave it, unless the drain names another
    time. Those in the middle of an answer are the last."""
    shutdown: v.SecondsOrZero = 30.0
    """Seconds that requests and answers have to finish when the proxy is told to stop. Meanwhile it serves
    everybody as before. What Kubernetes grants by default."""
    farewell: v.SecondsOrZero = 0.0
    """Seconds in which clients are told to connect anew when the proxy ends, the last of timeouts.shutdown; 0
    tells all at once. Nobody can reach it from then on, and Socket.IO's clients spread over a second by
    themselves. Some more, where others behind the same load balancer take them over."""
    opening: v.Seconds = 45.0
    """Seconds in which a Socket.IO websocket has to connect to a namespace; then it is closed with code 1008.
    What servers of Socket.IO grant by default. It stands while the instance has not answered."""
    hand_over: v.SecondsOrZero = 0.0
    """Seconds that websockets stay when the proxy is told to stop while another process listens on its
    addresses (see reuse_port). Only then timeouts.shutdown begins."""


class WebsocketSettings(Settings):
    """The websockets of Chainlit's pages."""

    compress: v.Flag = False
    """Whether messages to clients that offer permessage-deflate are compressed, and theirs are taken so: a
    token of 130 bytes becomes 12, for CPU time of the proxy. Backends are offered none. Takes effect for new
    websockets."""


class LogSettings(Settings):
    """What is written to standard error."""

    format: v.LogFormat = "console"
    """console for people, json for machines: one object per line."""
    access: v.Flag = True
    """Whether each request gets a line with its backend, its evidence and the outcome. The default of `run`
    is false."""
    level: v.LogLevel = "info"
    """The least important lines that are written."""


class OtelSettings(Settings):
    """Spans for OpenTelemetry. Takes effect at the start."""

    endpoint: v.OtlpUrl | None = None
    """Where spans are sent, one for each request and websocket: a collector that takes OTLP over HTTP.
    Without it there are none. It needs the extra otel."""
    service: v.Text = "chainlit-proxy"
    """What the proxy is called in traces: the service.name of its spans."""
    sample: v.Share = 1.0
    """The share of traces that begin here and are sent. Those that a request brings along in traceparent go
    by the decision in it. A span takes more CPU time than its request."""


class ResponseSettings(Settings):
    """What responses tell of the proxy, for the curious."""

    backend: v.Flag = False
    """Whether responses name the backend that gave them, as X-Chainlit-Backend. It shows how many there are
    and when they change."""
    timing: v.Flag = False
    """Whether responses of backends carry Server-Timing, which the developer tools of browsers show: how long
    the backend took to begin its answer, and by what evidence it was chosen."""


class DnsSettings(Settings):
    """Backends that DNS names."""

    name: v.HostName | None = None
    """The name whose addresses are the backends, such as that of a headless service; with one this source is
    on. It needs the extra `dns`."""
    records: v.Records = "a"
    """Which records are asked for: a or aaaa for addresses, srv for names with ports, of which those of the
    best priority are taken."""
    port: v.Port | None = Field(default=None, validate_default=True)
    """Where the instances listen, for a and aaaa. SRV records hold it."""
    servers: v.DnsServers = ()
    """Whom to ask, instead of the servers of the system."""
    shortest: v.Seconds = 1.0
    """Seconds between two questions at least, however short the time to live of an answer is."""
    longest: v.Seconds = Field(default=30.0, validate_default=True)
    """Seconds between two questions at most, however long the time to live of an answer is. After a failure
    the pause grows from shortest to this."""

    @field_validator("port")
    @classmethod
    def _has_one_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        is_srv = info.data.get("records") == "srv"
        if value is None and info.data.get("name") is not None and "records" in info.data and not is_srv:
            raise ValueError("must be the port of the instances, unless dns.records is srv")
        if value is not None and is_srv:
            raise ValueError("must be left out, because SRV records hold the port")
        return value

    @field_validator("longest")
    @classmethod
    def _is_not_shorter(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("shortest", value):
            raise ValueError(f"must not be less than dns.shortest{got(value)}")
        return value


class KubernetesSettings(Settings):
    """Backends that are the endpoints of a Service."""

    service: v.Label | None = None
    """The Service whose endpoints are the backends; with one this source is on. It needs the extra
    `kubernetes`, and a Role that may list and watch endpointslices."""
    namespace: v.Label | None = None
    """The namespace of the Service; by default that of the proxy's own pod, or `default` with a
    kubeconfig."""
    port: v.Label | None = None
    """The name of the Service's port behind which the instances listen, where it has several."""
    kubeconfig: v.File | None = None
    """The file that tells how to reach the API server. By default the proxy's own pod and its service account
    tell."""


class DockerSettings(Settings):
    """Backends that are containers of this machine."""

    label: v.Given | None = None
    """The label of the containers that are the backends, KEY or KEY=VALUE, such as
    com.docker.compose.service=chainlit; with one this source is on. It needs the extra `docker`."""
    port: v.Port = 8000
    """Where the instances listen in their containers; 8000 is Chainlit's own."""
    network: v.Given | None = None
    """The network in which the containers are reached, where they are in several."""
    socket: v.SocketPath = "/var/run/docker.sock"
    """The socket of the engine. Who may write there rules the machine: give the proxy one that lets through
    GET alone."""


class DiscoverySettings(Settings):
    """Where backends are found while it runs, beside those of backends or instead."""

    file: v.File | None = None
    """A YAML or JSON file with more backends, a list of entries as those of `backends`, or in the form of
    Prometheus' file_sd. It is watched; a bad or empty one is logged, and the last good one stays."""

    dns: DnsSettings = DnsSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    docker: DockerSettings = DockerSettings()

    def parts(self) -> dict[str, object]:
        """What is configured of each source that is on, in the order in which their backends are taken."""
        parts = {
            "file": self.file,
            "dns": self.dns if self.dns.name else None,
            "kubernetes": self.kubernetes if self.kubernetes.service else None,
            "docker": self.docker if self.docker.label else None,
        }
        return {name: part for name, part in parts.items() if part is not None}
