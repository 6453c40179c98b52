"""Names of backends: followed, remembered while they fail, and asked apart from each other."""

import asyncio
import errno
import socket
import threading
from collections.abc import Sequence

import pytest

from proxy.errors import ConnectFailed
from proxy.names import Names
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import WAIT

FAILURES = [
    socket.gaierror(socket.EAI_NONAME, "unknown"),
    socket.gaierror(socket.EAI_AGAIN, "try again"),
    UnicodeError("label empty or too long"),
    ValueError("embedded null"),
]


class Resolver:
    """Answers as it is told, and hangs at names that begin with `slow`."""

    def __init__(self) -> None:
        self.answer: Sequence[str] | Exception = ()
        self.go = threading.Event()
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sequence[str]:
        """As socket.getaddrinfo, in a thread."""
        self.asked.append(name)
        if name.startswith("slow"):
            self.go.wait(WAIT)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("failure", [*FAILURES, ()])
def test_a_name_that_does_not_resolve(failure: Exception | tuple[()]) -> None:
    """It is an error that names it, and where it worked before, that address; a new one is followed."""

    async def test() -> None:
        resolver = Resolver()
        names = Names(resolver)
        resolver.answer = failure
        with pytest.raises(ConnectFailed, match=r"^the name a\.test does not resolve$"):
            await names.find("a.test")
        names.worked("a.test", "127.0.0.1")
        assert await names.find("a.test") == ("127.0.0.1",)
        resolver.answer = ["127.0.0.2", "127.0.0.3"]
        assert await names.find("a.test") == ["127.0.0.2", "127.0.0.3"]
        names.worked("a.test", "127.0.0.3")
        assert await names.find("a.test") == ["127.0.0.3", "127.0.0.2"]

    run_loop(test())


@pytest.mark.parametrize("lack", [socket.gaierror(socket.EAI_MEMORY, ""), OSError(errno.ENOMEM, "")])
def test_what_this_machine_lacks_is_no_answer(lack: OSError) -> None:
    """Out of memory or descriptors, nothing is known of the name."""

    async def test() -> None:
        resolver = Resolver()
        resolver.answer = lack
        with pytest.raises(OSError) as caught:
            await Names(resolver).find("a.test")
        assert caught.value.errno == errno.ENOMEM

    run_loop(test())


def test_addresses_are_not_asked_for() -> None:
    """An address leads to itself."""

    async def test() -> None:
        resolver = Resolver()
        names = Names(resolver)
        assert [await names.find(host) for host in ("127.0.0.1", "::1")] == [("127.0.0.1",), ("::1",)]
        names.worked("::1", "::1")
        assert resolver.asked == []
        assert repr(names) == "<Names known=0 asking=0>"

    run_loop(test())


def test_names_that_hang_hold_up_no_other() -> None:
    """A hundred names hang, each asked once however many wait for it, and the next one resolves at once.

    Who has an address already goes on with that, soon.
    """

    async def test() -> None:
        resolver = Resolver()
        names = Names(resolver)
        resolver.answer = ["127.0.0.1"]
        waiting = [asyncio.create_task(names.find(f"slow-{n % 100}.test")) for n in range(200)]
        await asyncio.sleep(0)
        async with asyncio.timeout(WAIT):
            assert await names.find("quick.test") == ["127.0.0.1"]
            names.worked("slow-7.test", "127.0.0.7")
            assert await names.find("slow-7.test") == ("127.0.0.7",)
            waiting[0].cancel()
            resolver.go.set()
            found = await asyncio.gather(*waiting[1:])
        assert all(tuple(addresses) == ("127.0.0.1",) for addresses in found)
        assert len(resolver.asked) == 101

    run_loop(test())


def test_what_is_remembered_is_bounded() -> None:
    """Names that come and go, as those of pods do, are forgotten, the oldest first."""

    async def test() -> None:
        names = Names(Resolver(), most=2)
        for name in "abc":
            names.worked(f"{name}.test", "127.0.0.1")
        with pytest.raises(ConnectFailed):
            await names.find("a.test")
        assert await names.find("c.test") == ("127.0.0.1",)

    run_loop(test())
