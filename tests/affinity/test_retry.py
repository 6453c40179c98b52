"""When a request is tried again (RFC 9110 section 9.2.2)."""

import pytest

from proxy.affinity.retry import may_retry
from proxy.errors import (
    BadResponse,
    ConnectFailed,
    ConnectRefused,
    ConnectTimeout,
    HandshakeFailed,
    ProxyError,
    UpstreamClosed,
    UpstreamTimeout,
)

REFUSED, SLOW, CLOSED = ConnectRefused("x"), ConnectTimeout("x"), UpstreamClosed("x")
KEPT = UpstreamClosed("x", reused=True)

# error, method, upgrade, resayable, pinned, tries left, whether it is tried again
TABLE = [
    (REFUSED, b"GET", False, True, False, 1, True),
    (REFUSED, b"POST", False, True, False, 1, True),
    (REFUSED, b"GET", True, True, False, 1, True),
    (REFUSED, b"POST", False, False, False, 1, False),
    (REFUSED, b"GET", False, True, False, 0, False),
    (REFUSED, b"GET", False, True, True, 0, False),
    (SLOW, b"POST", False, True, False, 1, True),
    (SLOW, b"POST", False, True, False, 0, False),
    (SLOW, b"POST", False, True, True, 0, True),
    (SLOW, b"POST", False, False, True, 1, False),
    (KEPT, b"GET", False, True, False, 1, True),
    (KEPT, b"HEAD", False, True, True, 1, True),
    (KEPT, b"PUT", False, True, False, 1, True),
    (KEPT, b"DELETE", False, True, False, 1, True),
    (KEPT, b"POST", False, True, False, 1, False),
    (KEPT, b"PATCH", False, True, False, 1, False),
    (KEPT, b"GET", True, True, False, 1, False),
    (KEPT, b"PUT", False, False, False, 1, False),
    (KEPT, b"GET", False, True, False, 0, False),
    (CLOSED, b"GET", False, True, False, 1, False),
    (CLOSED, b"HEAD", False, True, True, 1, False),
    (ConnectFailed("x"), b"POST", False, True, False, 1, True),
    (ConnectFailed("x"), b"POST", False, True, False, 0, False),
    (ConnectFailed("x"), b"POST", False, True, True, 0, True),
    (HandshakeFailed("x"), b"POST", False, True, True, 0, True),
    (BadResponse("x"), b"GET", False, True, False, 1, False),
    (UpstreamTimeout("x"), b"GET", False, True, False, 1, False),
    (ProxyError("x"), b"GET", False, True, False, 1, False),
]


@pytest.mark.parametrize(("error", "method", "upgrade", "resayable", "pinned", "left", "again"), TABLE)
def test_what_is_tried_again(
    error: ProxyError, method: bytes, upgrade: bool, resayable: bool, pinned: bool, left: int, again: bool
) -> None:
    """What was never sent is said again; what a kept connection may have lost only if it is idempotent."""
    tried = may_retry(error, method, upgrade=upgrade, resayable=resayable, pinned=pinned, tries_left=left)
    assert tried is again
