"""What all sections of the configuration share, and some of them: see `models`."""

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from proxy.config import values as v
from proxy.config.problems import got
from proxy.config.span import Span


class Settings(BaseModel):
    """What all sections share: frozen, no key that is not known, no input in pydantic's own texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SocketSettings(Settings):
    """Permissions of the unix sockets in `listen`."""

    mode: v.SocketMode = "666"
    """The permissions of the files. By default every user of this machine may connect, as to a port."""
    group: v.Given | None = None
    """The group of the files. The proxy's user must be a member. For sockets that systemd opens, its unit
    decides."""

    @property
    def bits(self) -> int:
        """The mode as a number."""
        return int(self.mode, 8)


class AdminSocketSettings(SocketSettings):
    """Permissions of the admin socket, if it is a unix socket."""

    mode: v.SocketMode = "600"
    """The permissions of the file. By default only the proxy's user may connect: without a token, any user
    who can connect may do everything."""
    group: v.Given | None = None
    """The group of the file."""


class DirectorySettings(Settings):
    """The table of sessions and their backends."""

    size: v.Count = 100_000
    """How many sessions are remembered; the one unused for longest is dropped first."""
    redis: v.RedisUrl | None = None
    """The Redis or Valkey through which several proxies share the table. Each continues alone while it does
    not answer."""


class SessionSettings(Settings):
    """Conversations that outlive their instance."""

    shared: v.FlagOrAuto = "auto"
    """Whether the instances share their sessions. `auto` is true for `run`, which starts its replicas that
    way, and false for `serve`, where it only describes what your instances do."""
    store: v.Store = v.StoreUrl("sqlite")
    """Where `run` and `replica` keep sessions. `sqlite` is a file in the state folder of `run`; instances on
    several machines need Redis or Valkey."""
    notice: v.Text = "The answer was cut off because its server went away. Please ask again."
    """Shown to users whose answer was cut off because its instance died; empty shows nothing."""
    retry_turn: v.Flag = False
    """Whether the new instance runs the message of such a turn again, once. Whatever the turn had already
    done, such as a payment, then happens twice."""
    files: v.File | None = None
    """A folder for uploaded files that all instances can reach. By default next to the sqlite file, or in
    Redis."""
    file_limit: v.BytesOrZero = 10_485_760
    """Bytes of the largest uploaded file that is copied there; a larger one stays on its instance only."""


class ReplicaSettings(Settings):
    """The instances that `run` starts, and how many are wanted; the latter is computed for `serve` too."""

    count: v.Replicas = Span(2, 2)
    """How many `run` starts. With a range it starts the lower number, and more as they are wanted."""
    answers: v.Count = 50
    """Answers under way at once that one instance can handle; use less for an app that computes."""
    sessions: v.Count = 2000
    """Open sessions that one instance can hold."""
    late: v.Seconds = 0.1
    """Seconds that the median of the last five probes may take. If half of the instances are slower, each can
    handle less than the figures above."""
    spare: v.CountOrZero = 1
    """How many more instances are wanted than the work needs, for when one dies."""
    calm: v.Seconds = 120.0
    """Seconds that fewer instances must be enough before fewer are wanted."""
    start_timeout: v.Seconds = 120.0
    """Seconds from the start of an instance's process until it answers; then it is killed."""


class LimitSettings(Settings):
    """How much the proxy accepts from clients."""

    head: v.HeadBytes = 32_768
    """Bytes of a request head."""
    inspect: v.Bytes = 1_048_576
    """Bytes of the largest JSON body that is searched for a session id; a larger one passes unread. If above
    1048576, it is also the largest Engine.IO payload accepted."""
    packets: v.Count = 1000
    """Packets in one Engine.IO payload of a polling client; more get 413."""
    headers: v.Count = 100
    """Header fields of a request; more get 431."""
    body: v.BytesOrZero = 536_870_912
    """Bytes of a request body; more get 413. 0 sets no limit. Chainlit itself accepts files of 500 MB."""
    connections: v.CountOrZero = 10_000
    """Client connections open at once, including websockets; above that, 503 and a close. 0 sets no limit.
    Each needs one file descriptor, a websocket two."""
    connections_per_client: v.CountOrZero = 1000
    """Connections open at once from one address, or one IPv6 /64 network; above that, 429 and a close. 0 sets
    no limit. Addresses in forwarded.trusted have none: name the load balancer there."""
    requests_per_second: v.RateOrZero = 2000.0
    """Requests of one client per second, on average; more get 429. 0 sets no limit."""
    burst: v.Count = 10_000
    """Requests that a client may make at once before requests_per_second applies."""
    sessions_per_minute: v.CountOrZero = 3000
    """Socket.IO sessions that one client may open per minute; more get 429. 0 sets no limit."""
    questions_per_minute: v.CountOrZero = 600
    """Sessions per minute that the backends are asked for on behalf of one client, without those found.
    Requests above that follow their other evidence. 0 sets no limit."""
    http2_streams: v.Count = 100
    """Requests under way at once on one HTTP/2 connection. Each counts as a connection too."""
    http2_resets_per_second: v.Rate = 20.0
    """Requests per second that a client may reset on one HTTP/2 connection, on average, and ten times as many
    at once; more end the connection."""
    http2_overhead: v.Bytes = 4096
    """Bytes per second on one HTTP/2 connection other than requests and bodies, on average, and 65536 at
    once; more end it."""

    opening_frames: v.Count = 64
    """Frames on a Socket.IO websocket before its client has connected to Chainlit; more close it with code
    1008."""
    opening_bytes: v.HeadBytes = 262_144
    """Bytes before that, including the CONNECT packet with the user's environment."""


class TimeoutSettings(Settings):
    """How long the proxy waits."""

    connect: v.Seconds = 2.0
    """Seconds to open a connection to a backend."""
    head: v.Seconds = 10.0
    """Seconds for a client to send a complete request head."""
    idle: v.Seconds = 75.0
    """Seconds for the next request on a client's connection. Keep it above that of a load balancer in
    front."""
    response: v.Seconds = 300.0
    """Seconds for a backend to send its response head."""
    body: v.Seconds = 60.0
    """Seconds between two pieces of a request body from a client."""
    write: v.Seconds = 60.0
    """Seconds for a slow client to accept more of its response."""
    tunnel_idle: v.Seconds = 90.0
    """Seconds for a byte on a websocket, in either direction."""
    pool_idle: v.Seconds = 4.0
    """Seconds for an unused connection to a backend to be reused. Keep it below the 5 after which uvicorn
    closes it."""
    drain: v.SecondsOrZero = 300.0
    """Seconds for the sessions of a draining backend to leave it, unless the drain names another time."""
    shutdown: v.SecondsOrZero = 30.0
    """Seconds for requests and answers to finish when the proxy is stopped. It serves clients meanwhile."""
    farewell: v.SecondsOrZero = 0.0
    """Seconds for asking clients to reconnect when the proxy ends, as the last part of timeouts.shutdown; 0
    asks all at once. Set it if other proxies take the clients over: this one cannot be reached meanwhile."""
    opening: v.Seconds = 45.0
    """Seconds for a Socket.IO websocket to connect to a namespace; then it is closed with code 1008."""
    hand_over: v.SecondsOrZero = 0.0
    """Seconds for websockets to stay when the proxy is stopped while another process listens on its addresses
    (see reuse_port). timeouts.shutdown begins after that."""


class WebsocketSettings(Settings):
    """The websockets of Chainlit's pages."""

    compress: v.Flag = False
    """Whether messages are compressed for clients that offer permessage-deflate: a token of 130 bytes becomes
    12, at the cost of CPU time. Takes effect for new websockets."""


class LogSettings(Settings):
    """Logs, on standard error."""

    format: v.LogFormat = "console"
    """`console` for people, `json` for machines: one object per line."""
    access: v.Flag = True
    """Whether each request gets a line with its backend, evidence and outcome. The default of `run` is
    false."""
    level: v.LogLevel = "info"
    """The least important lines that are written."""


class OtelSettings(Settings):
    """Spans for OpenTelemetry. Takes effect at the start."""

    endpoint: v.OtlpUrl | None = None
    """A collector that accepts OTLP over HTTP; without it nothing is sent. Requires the extra `otel`."""
    service: v.Text = "chainlit-proxy"
    """The service.name of the spans."""
    sample: v.Share = 1.0
    """The share of traces beginning here that are sent. For other requests their traceparent decides."""


class ResponseSettings(Settings):
    """Information about the proxy in responses."""

    backend: v.Flag = False
    """Whether responses name their backend in X-Chainlit-Backend. This shows how many there are."""
    timing: v.Flag = False
    """Whether responses carry Server-Timing for browsers' developer tools: how long the backend took, and the
    evidence that chose it."""


class DnsSettings(Settings):
    """Backends from DNS."""

    name: v.HostName | None = None
    """The name whose addresses are the backends. Turns this source on. Requires the extra `dns`."""
    records: v.Records = "a"
    """The record type: `a` or `aaaa` for addresses, `srv` for names with ports."""
    port: v.Port | None = Field(default=None, validate_default=True)
    """Where the instances listen. SRV records contain it."""
    servers: v.DnsServers = ()
    """DNS servers to ask instead of the system's."""
    shortest: v.Seconds = 1.0
    """Seconds until it asks again at the earliest, even if the TTL is shorter."""
    longest: v.Seconds = Field(default=30.0, validate_default=True)
    """Seconds until it asks again at the latest, even if the TTL is longer, or after failures."""

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
    """The Service whose endpoints are the backends. Turns this source on. Requires the extra `kubernetes`,
    and a Role that may list and watch endpointslices."""
    namespace: v.Label | None = None
    """The namespace of the Service. By default that of the proxy's own pod, or `default` with a
    kubeconfig."""
    port: v.Label | None = None
    """The name of the instances' port, if the Service has several."""
    kubeconfig: v.File | None = None
    """How to reach the API server. By default the proxy uses its own pod's service account."""


class DockerSettings(Settings):
    """Backends that are containers of this machine."""

    label: v.Given | None = None
    """The label of the containers, KEY or KEY=VALUE. Turns this source on. Requires the extra `docker`."""
    port: v.Port = 8000
    """Where the instances listen in their containers."""
    network: v.Given | None = None
    """The network to reach the containers in, if they are in several."""
    socket: v.SocketPath = "/var/run/docker.sock"
    """The engine's socket. Write access to it gives control of the machine: provide a filtered socket that
    allows only GET."""


class DiscoverySettings(Settings):
    """Where backends are found while the proxy runs, in addition to `backends` or instead."""

    file: v.File | None = None
    """A YAML or JSON file with more backends: a list of entries as in `backends`, or Prometheus' file_sd. It
    is watched; if it is bad or empty, the last good list stays."""

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
