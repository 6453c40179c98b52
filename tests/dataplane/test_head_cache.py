"""What was read of one connection's fields serves the next one, within bounds, and for its origin only."""

import tracemalloc

from proxy.dataplane.head_cache import HeadCache, Known
from proxy.wire.fields import Fields
from proxy.wire.forwarding import Origin

HERE = Origin("127.0.0.1", b"http", trusted=False)


def remember(cache: HeadCache, origin: Origin, block: bytes) -> Known:
    """Add a field block as a connection does."""
    fields = Fields(block)
    known = Known(fields, origin, origin.address, "", b"pin")
    cache.add(block, known)
    return known


def test_it_is_remembered_for_its_origin_only() -> None:
    """The same fields from elsewhere are another client's: they carry another address upstream."""
    cache, block = HeadCache(), b"Host: a\r\n"
    known = remember(cache, HERE, block)
    assert cache.get(HERE, block) is known
    for other in (
        Origin("127.0.0.2", b"http", trusted=False),
        Origin("127.0.0.1", b"https", trusted=False),
        Origin("127.0.0.1", b"http", trusted=True),
    ):
        assert cache.get(other, block) is None


def test_made_up_fields_push_out_what_was_not_used() -> None:
    """No more bytes are held than the bound, however many blocks come; what is used again stays."""
    cache = HeadCache(10_500)
    used = remember(cache, HERE, b"Host: used\r\n")
    for number in range(100):
        remember(cache, HERE, b"Host: h%d\r\n" % number)
        assert cache.get(HERE, b"Host: used\r\n") is used
        assert cache.size <= 10_500
    assert len(cache) == 5


def test_short_lines_count_too() -> None:
    """What a block takes is mostly what was read of its lines: many short ones are no way round the bound."""
    cache = HeadCache(500_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(60):
            remember(cache, HERE, b"".join(b"a:%d\r\n" % (100 * number + line) for line in range(99)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * 500_000


def test_what_is_added_twice_counts_once() -> None:
    """Two connections may read the same block before either has remembered it."""
    cache, block = HeadCache(), b"Host: a\r\n"
    remember(cache, HERE, block)
    size = cache.size
    remember(cache, HERE, block)
    assert (len(cache), cache.size) == (1, size)


def test_a_long_block_is_not_kept() -> None:
    """One client's fields take no more than any other's."""
    cache, block = HeadCache(), b"Host: a\r\nX-Long: " + b"x" * 5000 + b"\r\n"
    remember(cache, HERE, block)
    assert cache.get(HERE, block) is None


def test_a_reload_has_all_read_anew() -> None:
    """Whom to trust may have changed."""
    cache, block = HeadCache(), b"Host: a\r\n"
    remember(cache, HERE, block)
    cache.clear()
    assert (cache.get(HERE, block), cache.size) == (None, 0)
