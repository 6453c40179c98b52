"""What all sections of the configuration share, and some of them: see `models`."""

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from proxy.config import values as v


class Settings(BaseModel):
    """What all sections share: frozen, no key that is not known, no input in pydantic's own texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TlsSettings(Settings):
    """`tls`: the certificate of the listeners."""

    cert: v.File = Field(
        default=None,
        description="A PEM file with the certificate and, behind it, those that lead to its root. With one, "
        "the TCP addresses of listen speak TLS 1.2 and 1.3 only; unix sockets stay plain.",
    )
    key: v.File = Field(
        default=None,
        validate_default=True,
        description="The PEM file of its private key, not encrypted. Both files are read again when they "
        "change; a pair that cannot be used is logged, and the old one stays.",
    )

    @field_validator("key")
    @classmethod
    def _is_a_pair(cls, value: str | None, info: ValidationInfo) -> str | None:
        cert = info.data.get("cert", "unreadable")
        if value is None and cert not in {None, "unreadable"}:
            raise ValueError("must name the file of the private key, because tls.cert is set")
        if value is not None and cert is None:
            raise ValueError("must not be set without tls.cert")
        return value


class BackendTlsSettings(Settings):
    """`backends.tls`: whom an https backend has to be."""

    ca: v.File = Field(
        default=None,
        description="A PEM file with the authorities that may have signed its certificate, instead of those "
        "of the system.",
    )
    server_name: v.HostName = Field(
        default=None,
        description="The name that its certificate has to bear, also sent as SNI; without it the host of "
        "the url.",
    )
    verify: v.Flag = Field(
        default=True,
        description="Whether its certificate is verified. Without that, whoever is between the proxy and "
        "the backend can read and change everything.",
    )


class DirectorySettings(Settings):
    """`affinity.directory`: which session lives where."""

    size: v.Count = Field(
        default=100_000,
        description="How many sessions are remembered; the one that was not used for longest is forgotten "
        "first. It is a cache: what it forgot is asked of the backends again.",
    )
    redis: v.RedisUrl = Field(
        default=None,
        description="The Redis or Valkey through which several proxies share the table, the same for all of "
        "them. It is asked only for what a proxy does not know, and while it does not answer each goes on "
        "alone. The url may hold a password, so it is never shown.",
    )


class SessionSettings(Settings):
    """`sessions`: conversations that outlive their instance."""

    shared: v.SharedChoice = Field(
        default=v.Shared.AUTO,
        description="Whether the instances share their sessions. auto is true for `run`, which then starts "
        "its replicas so, and false for `serve`: there it only tells the proxy what the instances do.",
    )
    store: v.StoreUrl = Field(
        default="sqlite",
        description="Where `run` and `replica` keep sessions. sqlite is a file in the folder of `run`, which "
        "goes with it; instances on several machines need Redis or Valkey.",
    )
    notice: v.Text = Field(
        default="The answer was cut off because its server went away. Please ask again.",
        description="What a user reads whose answer was cut off when its instance died; empty: nothing.",
    )
    retry_turn: v.Flag = Field(
        default=False,
        description="Whether the message of such a turn is given to the new instance, once. What the turn "
        "had already done, a payment for instance, is then done twice.",
    )
    files: v.File = Field(
        default=None,
        description="A folder that all instances reach, in which uploaded files are kept. By default beside "
        "the file of sqlite, and with Redis in the store itself.",
    )
    file_limit: v.CountOrZero = Field(
        default=10_485_760,
        description="Bytes of the largest uploaded file that is copied to the folder or the store; a larger "
        "one stays on its instance alone. Files on the same disk are linked, whatever their size.",
    )


class LimitSettings(Settings):
    """`limits`: how much the proxy accepts."""

    head: v.HeadBytes = Field(
        default=32_768,
        description="Bytes of the head of a request. Chainlit spreads a large login over "
        "several cookies of 3000 characters each, so the 8192 of other proxies are too few.",
    )
    inspect: v.Count = Field(
        default=1_048_576,
        description="Bytes of the largest JSON body that is read to find a session id; a larger one is "
        "passed on unread. Of an Engine.IO payload it is the most that is taken, if it is above 1048576.",
    )
    packets: v.Count = Field(
        default=1000,
        description="Packets of one Engine.IO payload that a client sends by polling; more are answered 413. "
        "python-engineio takes 16 unless the app raises Payload.max_decode_packets.",
    )
    headers: v.Count = Field(
        default=100,
        description="Header fields of a request; more are answered 431. A browser sends some 20, and each "
        "proxy in front adds a few.",
    )
    body: v.CountOrZero = Field(
        default=536_870_912,
        description="Bytes of the body of a request, chunk sizes included; a larger one is answered 413. "
        "0 sets no limit. 512 MiB, since Chainlit itself takes files of 500 MB unless its config says "
        "otherwise, and writes them to disk before it looks at their size.",
    )
    connections: v.CountOrZero = Field(
        default=10_000,
        description="Connections of clients open at once, websockets among them; one more is answered 503 "
        "and closed. 0 sets no limit. Each takes one file descriptor, with its websocket two.",
    )
    connections_per_client: v.CountOrZero = Field(
        default=1000,
        description="Connections that one address, or one /64 network in IPv6, has open at once; one more "
        "is answered 429 and closed. 0 sets no limit. An address may be an office of hundreds; those in "
        "forwarded.trusted have no limit, so name the load balancer there.",
    )
    requests_per_second: v.SecondsOrZero = Field(
        default=0.0,
        description="Requests that one client may make per second, on average; more are answered 429. 0, "
        "the default, sets no limit: one tab that polls makes some 50 while a text is streamed, and how many "
        "tabs share an address only you know.",
    )
    burst: v.Count = Field(
        default=400,
        description="Requests that a client may make at once before requests_per_second slows it down. A "
        "page of Chainlit loads some 50 files.",
    )
    sessions_per_minute: v.CountOrZero = Field(
        default=0,
        description="Socket.IO sessions that one client may open per minute, at once or over time; more are "
        "answered 429. 0, the default, sets no limit: after a failure all tabs of an office connect anew.",
    )

    opening_frames: v.Count = Field(
        default=64,
        description="Frames that a client may send on a Socket.IO websocket before it has connected to "
        "Chainlit; with more it is closed with code 1008. A client says three.",
    )
    opening_bytes: v.HeadBytes = Field(
        default=262_144,
        description="Bytes that it may send before, its CONNECT packet included, which holds the user's "
        "environment. By polling the same two bounds hold for what is said to other namespaces first.",
    )


class TimeoutSettings(Settings):
    """`timeouts`: how long the proxy waits for either side."""

    connect: v.Seconds = Field(default=2.0, description="Seconds to open a connection to a backend.")
    head: v.Seconds = Field(
        default=10.0, description="Seconds in which a client has to send the whole head of a request."
    )
    idle: v.Seconds = Field(
        default=75.0,
        description="Seconds that a client's connection stays open without a request. More than the 60 of "
        "common load balancers, so that one in front of the proxy closes first.",
    )
    response: v.Seconds = Field(
        default=300.0,
        description="Seconds until a backend sends the head of its response. Long, because an app that "
        "blocks its event loop answers late and its users must not lose their session for "
        "that.",
    )
    body: v.Seconds = Field(
        default=60.0,
        description="Seconds that a client may take between two pieces of a request's body.",
    )
    write: v.Seconds = Field(
        default=60.0,
        description="Seconds in which a client that does not keep up has to take some of what it is sent. "
        "Each piece that it takes begins them anew.",
    )
    tunnel_idle: v.Seconds = Field(
        default=90.0,
        description="Seconds that a websocket stays open without a byte in either direction. Twice the 45 "
        "after which Engine.IO itself takes the other side for gone.",
    )
    pool_idle: v.Seconds = Field(
        default=4.0,
        description="Seconds that an unused connection to a backend is kept. Less than the 5 after which "
        "uvicorn closes it, so that no request meets a closing connection.",
    )
    drain: v.SecondsOrZero = Field(
        default=300.0,
        description="Seconds in which the sessions of a backend that drains have to leave it, unless the "
        "drain names another time. Those in the middle of an answer are the last.",
    )
    shutdown: v.SecondsOrZero = Field(
        default=30.0,
        description="Seconds that requests and answers have to finish when the proxy is told to stop. "
        "Meanwhile it serves everybody as before. What Kubernetes grants by default.",
    )
    farewell: v.SecondsOrZero = Field(
        default=0.0,
        description="Seconds in which clients are told to connect anew when the proxy ends, the last of "
        "timeouts.shutdown; 0 tells all at once. Nobody can reach it from then on, and Socket.IO's clients "
        "spread over a second by themselves. Some more, where others behind the same load balancer take them "
        "over.",
    )
    opening: v.Seconds = Field(
        default=45.0,
        description="Seconds in which a Socket.IO websocket has to connect to a namespace; then it is closed "
        "with code 1008. What servers of Socket.IO grant by default. It stands while the instance has not "
        "answered.",
    )
    hand_over: v.SecondsOrZero = Field(
        default=0.0,
        description="Seconds that websockets stay when the proxy is told to stop while another process "
        "listens on its addresses (see reuse_port). Only then timeouts.shutdown begins.",
    )
