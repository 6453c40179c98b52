"""When a request is tried again (RFC 9110 section 9.2.2)."""

import pytest

from proxy.affinity.backend import Backend
from proxy.affinity.decision import Decision, Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.retry import Next, after, is_pinned
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
from tests.affinity.making import backend_of, fleet_of

REFUSED, SLOW, CLOSED = ConnectRefused("x"), ConnectTimeout("x"), UpstreamClosed("x")
KEPT = UpstreamClosed("x", reused=True)

NO, SAME, LATER, ELSEWHERE = Next.REFUSE, Next.SAME, Next.LATER, Next.ELSEWHERE
ANYWHERE, UNKNOWN = Next.ANYWHERE, Next.UNKNOWN

# error, method, upgrade, resayable, pinned, tries left, what it does then
TABLE = [
    (REFUSED, b"GET", False, True, False, 1, ANYWHERE),
    (REFUSED, b"POST", False, True, False, 1, ANYWHERE),
    (REFUSED, b"GET", True, True, False, 1, ANYWHERE),
    (REFUSED, b"POST", False, False, False, 1, NO),
    (REFUSED, b"GET", False, True, False, 0, NO),
    (REFUSED, b"GET", False, True, True, 0, NO),
    (SLOW, b"POST", False, True, False, 1, ELSEWHERE),
    (SLOW, b"POST", False, True, False, 0, NO),
    (SLOW, b"POST", False, True, True, 0, LATER),
    (SLOW, b"POST", False, False, True, 1, NO),
    (KEPT, b"GET", False, True, False, 1, SAME),
    (KEPT, b"HEAD", False, True, True, 1, SAME),
    (KEPT, b"PUT", False, True, False, 1, SAME),
    (KEPT, b"DELETE", False, True, False, 1, SAME),
    (KEPT, b"POST", False, True, False, 1, NO),
    (KEPT, b"PATCH", False, True, False, 1, NO),
    (KEPT, b"GET", True, True, False, 1, NO),
    (KEPT, b"PUT", False, False, False, 1, NO),
    (KEPT, b"GET", False, True, False, 0, NO),
    (CLOSED, b"GET", False, True, False, 1, NO),
    (CLOSED, b"HEAD", False, True, True, 1, NO),
    (ConnectFailed("x"), b"POST", False, True, False, 1, ELSEWHERE),
    (ConnectFailed("x"), b"POST", False, True, False, 0, NO),
    (ConnectFailed("x"), b"POST", False, True, True, 0, LATER),
    (HandshakeFailed("x"), b"POST", False, True, True, 0, LATER),
    (BadResponse("x"), b"GET", False, True, False, 1, NO),
    (UpstreamTimeout("x"), b"GET", False, True, False, 1, NO),
    (ProxyError("x"), b"GET", False, True, False, 1, NO),
]


def backend() -> Backend:
    """One that holds its sessions."""
    return backend_of(fleet_of("a"), "a")


def decision(*, pinned: bool) -> Decision:
    """Where the request went."""
    evidence, outcome = (Evidence.SID, Outcome.PINNED) if pinned else (Evidence.CLIENT, Outcome.PLACED)
    return Decision(backend(), evidence, outcome)


@pytest.mark.parametrize(("error", "method", "upgrade", "resayable", "pinned", "left", "then"), TABLE)
def test_what_is_tried_again(
    error: ProxyError, method: bytes, upgrade: bool, resayable: bool, pinned: bool, left: int, then: Next
) -> None:
    """What was never sent is said again; what a kept connection may have lost only if it is idempotent."""
    found = after(
        error,
        decision(pinned=pinned),
        method,
        poll=False,
        upgrade=upgrade,
        resayable=resayable,
        tries_left=left,
    )
    assert found is then


@pytest.mark.parametrize(
    ("error", "then"), [(KEPT, UNKNOWN), (CLOSED, UNKNOWN), (SLOW, LATER), (REFUSED, ANYWHERE)]
)
def test_a_poll_that_was_heard_is_not_said_again(error: ProxyError, then: Next) -> None:
    """It may have taken packets out of the backend's queue: its client connects anew."""
    found = after(
        error, decision(pinned=True), b"GET", poll=True, upgrade=False, resayable=True, tries_left=1
    )
    assert found is then


@pytest.mark.parametrize(
    ("evidence", "outcome", "belongs"),
    [
        (Evidence.SID, Outcome.PINNED, True),
        (Evidence.SESSION, Outcome.PINNED, True),
        (Evidence.SESSION, Outcome.LOCATED, True),
        (Evidence.SESSION, Outcome.PLACED, False),
        (Evidence.PIN_COOKIE, Outcome.PINNED, False),
        (Evidence.CLIENT, Outcome.PLACED, False),
    ],
)
def test_what_belongs_to_its_backend(evidence: Evidence, outcome: Outcome, belongs: bool) -> None:
    """A sid and a session are at one backend; what is guessed may go elsewhere."""
    assert is_pinned(Decision(backend(), evidence, outcome)) is belongs


def test_a_backend_taken_for_dead_is_not_asked_again() -> None:
    """A kept connection of it broke, and meanwhile it went down."""
    gone = decision(pinned=False)
    gone.backend.gone = True
    found = after(KEPT, gone, b"GET", poll=False, upgrade=False, resayable=True, tries_left=1)
    assert found is NO
