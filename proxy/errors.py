"""The errors that end an exchange, and what each means for the client and for a retry.

An error has a *side* (whose fault), a *status* (what the client is told) and a *retry* rule (when the
same request may be tried again). Foreign exceptions are translated into these once, at the border where
they are caught; one place (`wire.reply`) renders them to bytes.
"""

from enum import Enum, StrEnum


class Side(Enum):
    """Whose fault an error is."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


class Retry(Enum):
    """When a request that met an error may be tried again."""

    NEVER = "never"
    IF_REUSED = "if_reused"  # once, at the same backend: a kept connection that it may have closed before
    IF_UNSENT = "if_unsent"  # at any backend: nothing was sent


class Limit(StrEnum):
    """What a client can be over, as the metric calls it."""

    HEAD = "head"
    HEADERS = "headers"
    BODY = "body"
    FRAMING = "framing"  # of a chunked body, beside its content
    PACKETS = "packets"
    SLOW_HEAD = "slow_head"
    SLOW_BODY = "slow_body"
    SLOW_READ = "slow_read"  # of what it is sent
    IDLE = "idle"  # a connection without a request
    TUNNEL_IDLE = "tunnel_idle"
    HAND_OVER_BYTES = "hand_over_bytes"  # what is kept so that a client can be handed over
    CONNECTIONS = "connections"
    CONNECTIONS_PER_CLIENT = "connections_per_client"
    REQUESTS_PER_SECOND = "requests_per_second"
    SESSIONS_PER_MINUTE = "sessions_per_minute"
    LOCATE_QUESTIONS = "locate_questions"  # asked for no session, and not refused
    QUESTIONS_PER_MINUTE = "questions_per_minute"  # the same
    OPENING_FRAMES = "opening_frames"  # of a websocket that has not connected
    OPENING_BYTES = "opening_bytes"
    OPENING_TIME = "opening"  # as `timeouts.opening`
    HTTP2_STREAMS = "http2_streams"  # open at once on a connection
    HTTP2_RESETS = "http2_resets"  # of streams, by either side
    HTTP2_OVERHEAD = "http2_overhead"  # of frames, beside requests and their bodies
    LINGER_SESSIONS = "linger_sessions"  # lost clients that are waited for
    INFLATED = "inflated"  # of a compressed message
    MOST_SESSIONS = "most_sessions"  # of all backends, when a session was to begin


class Odd(StrEnum):
    """What a client can name wrongly, as the metric calls it."""

    SESSION = "session"
    SID = "sid"
    NAMESPACE = "namespace"  # that in which the proxy speaks with instances


class ProxyError(Exception):
    """An exchange cannot go on; `status` is what the client is told, `reason` what the log is told."""

    side = Side.INTERNAL
    status = 500
    retry = Retry.NEVER
    retry_after = 0  # seconds after which the client may try again, 0 if that is not known
    public_reason = ""  # what the client is told instead of the reason, where that names what is ours

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        if status is not None:
            self.status = status


class FieldError(ProxyError):
    """A field block breaks the rules; the caller translates it to its side's error."""

    status = 400


class BodyError(ProxyError):
    """A body breaks its framing; the caller translates it to its side's error."""

    status = 400


class FramingError(BodyError):
    """A chunked body consists of its framing."""


class BadRequest(ProxyError):  # noqa: N818 - named as RFC 9110 names it
    """The client's message breaks the protocol or a limit; its connection is closed after the answer."""

    side = Side.DOWNSTREAM
    status = 400


class OddId(BadRequest):
    """The client names what nothing is called; never passed on, since a backend may make a path of it."""

    def __init__(self, odd: Odd, reason: str) -> None:
        super().__init__(reason)
        self.odd = odd


class OverLimit(ProxyError):  # noqa: N818 - what happened
    """The client is over one of the limits; one that may try again keeps its connection."""

    side = Side.DOWNSTREAM

    def __init__(self, limit: Limit, reason: str, *, status: int, retry_after: int = 0) -> None:
        super().__init__(reason, status=status)
        self.limit = limit
        self.retry_after = retry_after


class BadResponse(ProxyError):  # noqa: N818 - the twin of BadRequest
    """The backend's message breaks the protocol."""

    side = Side.UPSTREAM
    status = 502


class ConnectRefused(ProxyError):  # noqa: N818 - what the system call says
    """Nobody listens at the backend's address: it is gone. Nothing was sent."""

    side = Side.UPSTREAM
    status = 502
    retry = Retry.IF_UNSENT
    public_reason = "the backend is not there"


class ConnectFailed(ProxyError):  # noqa: N818 - what happened
    """No connection to the backend, for a reason that does not tell whether it is there. Nothing was sent.

    Its name does not resolve, for instance, or no route leads there: that counts as silence, no more.
    """

    side = Side.UPSTREAM
    status = 502
    retry = Retry.IF_UNSENT
    public_reason = "no connection to the backend"


class HandshakeFailed(ConnectFailed):
    """No TLS with the backend: its certificate does not verify, or it speaks something else."""


class ConnectTimeout(ConnectFailed):
    """The backend did not accept a connection in time: it may only be slow."""

    status = 504


class UpstreamClosed(ProxyError):  # noqa: N818 - what happened
    """The backend closed or reset the connection before its response was whole."""

    side = Side.UPSTREAM
    status = 502

    def __init__(self, reason: str, *, reused: bool = False) -> None:
        """`reused`: it was a kept connection, and not a byte came back over it."""
        super().__init__(reason)
        if reused:
            self.retry = Retry.IF_REUSED


class UpstreamTimeout(ProxyError):  # noqa: N818 - what happened
    """The backend did not answer in time."""

    side = Side.UPSTREAM
    status = 504


class NoBackend(ProxyError):  # noqa: N818 - what happened
    """No backend can take this request now."""

    side = Side.INTERNAL
    status = 503
