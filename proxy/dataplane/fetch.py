"""Small requests that the proxy makes itself: a probe, a handshake, a question, the opening of a websocket.

Unlike an exchange they have no client that waits for bytes: the answer is awaited whole, bounded in size
and time. Cancelling one closes its connection.
"""

import asyncio

from proxy.affinity.backend import Backend
from proxy.dataplane.leg import OPENING
from proxy.dataplane.patience import Stood, never, within
from proxy.dataplane.pool import Pool
from proxy.dataplane.upstream import Upstream, connect
from proxy.errors import BadResponse, ProxyError, Retry, UpstreamClosed, UpstreamTimeout
from proxy.wire.body import ChunkedBody, Framer
from proxy.wire.head import ResponseHead

_LARGEST = 65536  # bytes of an answer: a handshake has 120


class Fetch:
    """The user of an upstream connection whose answer is awaited."""

    __slots__ = (
        "_body",
        "_cut",
        "_decoder",
        "_framer",
        "_head",
        "_largest",
        "_protocol",
        "_size",
        "future",
        "upstream",
    )

    def __init__(
        self,
        upstream: Upstream,
        protocol: bytes | None = None,
        *,
        cut: bool = False,
        largest: int = _LARGEST,
    ) -> None:
        self.upstream = upstream
        self._largest = largest  # bytes of an answer
        self._cut = cut  # whether the rest of a long answer is left unread, and not an error
        self._protocol = protocol  # the one that is asked for with Upgrade
        # What comes of it; who does not await `answer` gives it up by abandoning the connection.
        self.future: asyncio.Future[tuple[ResponseHead, bytes]] = asyncio.get_running_loop().create_future()
        self._head: ResponseHead | None = None
        self._framer: Framer | None = None
        self._decoder: ChunkedBody | None = None  # set when the answer is chunked
        self._body: list[bytes] = []
        self._size = 0  # bytes of it, framing included

    async def answer(self, timeout: float, stood: Stood = never) -> tuple[ResponseHead, bytes]:  # noqa: ASYNC109
        """The head and the body, or after 101 the bytes behind the head. Raises ProxyError."""
        try:
            async with within(timeout, stood):
                return await self.future
        except TimeoutError:
            self.upstream.abandon(self)
            raise UpstreamTimeout(f"no answer within {timeout:g} s") from None
        except asyncio.CancelledError:
            self.upstream.abandon(self)
            raise

    def informed(self, head: ResponseHead) -> None:
        """As User."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """As User: nothing is read until the caller has attached its own protocol. Raises BadResponse."""
        if head.fields.upgrade.lower() != self._protocol:
            raise BadResponse("the backend switched to a protocol that was not asked for")
        self.upstream.leg.pause(OPENING)
        self._finish(head, rest)

    def responded(self, head: ResponseHead, framer: Framer, data: bytes) -> None:
        """As User."""
        self._head, self._framer = head, framer
        self._decoder = ChunkedBody() if head.fields.chunked else None
        self.received(data)

    def received(self, data: bytes) -> None:
        """As User."""
        self._size += len(data)
        if self._decoder is None:
            self._body.append(data)
        else:
            self._decoder.feed(data, self._body)
        if self._size > self._largest:
            self.upstream.abandon(self)
            if self._cut and self._head is not None:
                self._finish(self._head, b"".join(self._body))
            self.failed(BadResponse("answer too long"))
        elif self._framer is not None and self._framer.done and self._head is not None:
            self._finish(self._head, b"".join(self._body))

    def failed(self, error: ProxyError) -> None:
        """As User."""
        if not self.future.done():
            self.future.set_exception(error)

    def _finish(self, head: ResponseHead, body: bytes) -> None:
        if not self.future.done():
            self.future.set_result((head, body))


async def fetch(
    pool: Pool,
    method: bytes,
    head: bytes,
    timeout: float,  # noqa: ASYNC109
    largest: int = _LARGEST,
) -> tuple[ResponseHead, bytes]:
    """Send a request of one head to a pool's backend; raises ProxyError.

    Its answer has at most `largest` bytes. It is idempotent: if a kept connection was closed it is said once
    more, over a new one.
    """
    kept = pool.take()
    if kept is not None:
        request = Fetch(kept, largest=largest)
        kept.send(request, method, head)
        try:
            return await request.answer(timeout, pool.stood)
        except UpstreamClosed as error:
            if error.retry is not Retry.IF_REUSED:
                raise
    try:
        upstream = await pool.connect()
        request = Fetch(upstream, largest=largest)
        upstream.send(request, method, head)
        return await request.answer(timeout, pool.stood)
    except ProxyError as error:
        if kept is not None:
            error.retry = Retry.NEVER  # it may have been heard over the kept connection
        raise


async def tell(pool: Pool, method: bytes, message: bytes, timeout: float) -> ResponseHead:  # noqa: ASYNC109
    """Send a whole request that must not be said twice, over a new connection; raises ProxyError."""
    upstream = await pool.connect()
    request = Fetch(upstream)
    upstream.send(request, method, message)
    response, _ = await request.answer(timeout, pool.stood)
    return response


async def open_websocket(pool: Pool, head: bytes, timeout: float) -> tuple[Upstream, bytes]:  # noqa: ASYNC109
    """Open a websocket to a pool's backend: the connection, paused, and what came behind the 101."""
    upstream = await pool.connect()
    request = Fetch(upstream, b"websocket")
    upstream.send(request, b"GET", head)
    response, rest = await request.answer(timeout, pool.stood)
    if response.status != 101:
        raise BadResponse(f"the backend answered {response.status} to an upgrade")
    return upstream, rest


class _Unkept:
    """Keeps no connection: each has served its one request."""

    def __init__(self) -> None:
        self.heads: dict[bytes, ResponseHead] = {}
        self.extra = b""

    def freed(self, upstream: Upstream) -> None:
        """As Keeper."""
        upstream.transport.abort()

    def lost(self, upstream: Upstream) -> None:
        """As Keeper."""


_UNKEPT = _Unkept()


async def ask(
    backend: Backend,
    method: bytes,
    message: bytes,
    timeout: float,  # noqa: ASYNC109
) -> tuple[ResponseHead, bytes]:
    """Send a whole request over a connection of its own: the head and the first 64 KiB of the answer's body.

    Raises ProxyError; the timeout, in seconds, is that of the connection and again that of the answer.
    """
    upstream = await connect(_UNKEPT, backend, timeout)
    request = Fetch(upstream, cut=True)
    upstream.send(request, method, message)
    return await request.answer(timeout)
