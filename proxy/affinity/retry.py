"""When a request that met an error upstream is tried again, on the same backend or another one.

A request may be what ends its backend, so one that was heard is never said to another backend. Only where a
kept connection broke without an answer may the backend have closed it before: then the request is said once
more, if it is idempotent (RFC 9110 section 9.2.2), to the same backend over a new connection. What was never
sent goes on to other backends; a request that belongs to its backend waits for one that does not accept
connections, rather than go elsewhere.
"""

from proxy.errors import ConnectFailed, ProxyError, Retry

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))


def may_retry(
    error: ProxyError, method: bytes, *, upgrade: bool, resayable: bool, pinned: bool, tries_left: int
) -> bool:
    """Whether to try again.

    `resayable` says that all of the body that was sent is still at hand, `pinned` that the request belongs
    to the backend that failed.
    """
    if not resayable or error.retry is Retry.NEVER:
        return False
    if isinstance(error, ConnectFailed) and pinned:
        return True  # until the response is due
    if tries_left <= 0:
        return False
    if error.retry is Retry.IF_UNSENT:
        return True
    # An upgrade that was heard may have begun a session (on_chat_start runs twice: Chainlit PR 2891).
    return method in _IDEMPOTENT and not upgrade
