"""What was read of one connection's fields serves the next one, within bounds, and for its origin only."""

import pytest

from proxy.affinity.evidence import read_hints
from proxy.dataplane import seen as module
from proxy.dataplane.seen import Known, Seen
from proxy.wire.fields import Fields
from proxy.wire.forwarding import Origin

HERE = Origin("127.0.0.1", b"http", trusted=False)


def remember(seen: Seen, origin: Origin, block: bytes) -> Known:
    """Add a field block as a connection does."""
    fields = Fields(block)
    known = Known(read_hints(fields, origin.address, b"pin"), "", secure=False, request_id=None, trace="")
    seen.add(origin, block, fields, known)
    return known


def test_it_is_remembered_for_its_origin_only() -> None:
    """The same fields from elsewhere are another client's: they carry another address upstream."""
    seen, block = Seen(), b"Host: a\r\n"
    known = remember(seen, HERE, block)
    found = seen.get(HERE, block)
    assert found is not None
    assert found[1] is known
    for other in (
        Origin("127.0.0.2", b"http", trusted=False),
        Origin("127.0.0.1", b"https", trusted=False),
        Origin("127.0.0.1", b"http", trusted=True),
    ):
        assert seen.get(other, block) is None


def test_made_up_fields_push_out_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the bound is held, however many come."""
    monkeypatch.setattr(module, "_MOST_SEEN", 3)
    seen = Seen()
    blocks = [b"Host: h%d\r\n" % number for number in range(5)]
    for block in blocks:
        remember(seen, HERE, block)
    assert [seen.get(HERE, block) is not None for block in blocks] == [False, False, True, True, True]


def test_a_long_block_is_not_kept() -> None:
    """What is held is bounded in bytes as well."""
    seen, block = Seen(), b"Host: a\r\nX-Long: " + b"x" * 5000 + b"\r\n"
    remember(seen, HERE, block)
    assert seen.get(HERE, block) is None


def test_a_reload_has_all_read_anew() -> None:
    """Whom to trust may have changed."""
    seen, block = Seen(), b"Host: a\r\n"
    remember(seen, HERE, block)
    seen.clear()
    assert seen.get(HERE, block) is None
