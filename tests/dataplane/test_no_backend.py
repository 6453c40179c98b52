"""No backend takes requests: the client is told when to come again, a person is shown a page."""

from tests.dataplane.peers import get
from tests.dataplane.world import World, run


def test_no_backend() -> None:
    """While no backend takes requests, they are answered 503 with the time to come again."""

    async def test(world: World) -> None:
        response = await world.ask(get(b"/x"))
        assert (response.status, response.get(b"retry-after")) == (503, b"2")
        assert b"<html" not in response.body
        head = await world.ask(get(b"/x", method=b"HEAD"), to_head=True)
        assert head.status == 503

    run(test, healthy=False)


def test_browser_is_shown_a_page_that_waits() -> None:
    """A browser that asks for a page gets one that comes again by itself; its scripts get none."""

    async def test(world: World) -> None:
        page = await world.ask(get(b"/", b"Accept: text/html,application/xhtml+xml"))
        assert (page.status, page.get(b"retry-after")) == (503, b"2")
        assert b'http-equiv="refresh"' in page.body
        assert page.get(b"cache-control") == b"no-store"
        poll = await world.ask(get(b"/ws/socket.io/?EIO=4&transport=polling", b"Accept: text/html"))
        assert (poll.status, b"<html" in poll.body) == (503, False)

    run(test, healthy=False)


def test_backends_that_all_refuse() -> None:
    """When every backend refuses, the request is answered 503, not 502: it may come again."""

    async def test(world: World) -> None:
        for backend in world.backends:
            backend.refuse()
        assert (await world.ask(get())).status == 503

    run(test, "abc")
