"""Where the names of backends lead: the system's resolver, asked so that no name waits for another.

Each question has a thread of its own, one at a time for each name: the executor of the loop has few threads,
and some names that hang would take them all. A name is asked anew for every connection, so one that leads
somewhere else is followed; while it does not resolve, the address that last worked is used.
"""

import asyncio
import errno
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

from proxy.errors import ConnectFailed

_MOST = 4096  # names that are remembered
_PATIENCE = 0.5  # seconds that a name may take which has an address to go on with


class _Question(NamedTuple):
    """One that is under way."""

    began: float
    answer: "asyncio.Future[Sequence[str]]"


def ask_the_system(name: str) -> Sequence[str]:
    """The addresses of a name, the preferred first. Raises OSError, UnicodeError for what is no name."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Names:
    """The addresses of names; owned by `net`."""

    def __init__(self, ask: Callable[[str], Sequence[str]] = ask_the_system, most: int = _MOST) -> None:
        """`ask` is called in a thread; it raises OSError or ValueError for a name that does not resolve."""
        self._ask = ask
        self._most = most
        self._worked: OrderedDict[str, str] = OrderedDict()  # the last address that did, by name
        self._asking: dict[tuple[asyncio.AbstractEventLoop, str], _Question] = {}

    async def find(self, host: str) -> Sequence[str]:
        """The addresses to try, that which last worked first; an address is its own. Safe to cancel.

        Raises ConnectFailed, or OSError if this machine is out of something.
        """
        if is_address(host):
            return (host,)
        loop, last = asyncio.get_running_loop(), self._worked.get(host)
        question = self._asking.get((loop, host)) or self._begin(loop, host)
        left = None if last is None else max(0.0, question.began + _PATIENCE - loop.time())
        await asyncio.wait([question.answer], timeout=left)
        if last is None:
            return question.answer.result()
        if not question.answer.done() or isinstance(question.answer.exception(), ConnectFailed):
            return (last,)
        return sorted(question.answer.result(), key=lambda address: address != last)

    def last(self, host: str) -> str:
        """The address that last worked; an address is its own, "" where none did."""
        return host if is_address(host) else self._worked.get(host, "")

    def worked(self, host: str, address: str) -> None:
        """A connection to one of the addresses of a name was opened."""
        if host == address:
            return
        self._worked[host] = address
        self._worked.move_to_end(host)
        if len(self._worked) > self._most:
            self._worked.popitem(last=False)

    def _begin(self, loop: asyncio.AbstractEventLoop, host: str) -> _Question:
        question = self._asking[loop, host] = _Question(loop.time(), loop.create_future())
        question.answer.add_done_callback(lambda answer: answer.exception())  # perhaps nobody waits any more

        def deliver(answer: Sequence[str] | Exception) -> None:
            del self._asking[loop, host]
            if isinstance(answer, Exception):
                question.answer.set_exception(answer)
            else:
                question.answer.set_result(answer)

        def work() -> None:
            answer = self._answer(host)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(deliver, answer)

        try:
            threading.Thread(target=work, name=f"resolve {host}", daemon=True).start()
        except RuntimeError:
            deliver(OSError(errno.ENOMEM, "no thread to resolve a name in"))
        return question

    def _answer(self, host: str) -> Sequence[str] | Exception:
        try:
            found = self._ask(host)
        except socket.gaierror as error:
            if error.errno == socket.EAI_MEMORY:
                return OSError(errno.ENOMEM, str(error))
        except OSError as error:
            return error
        except ValueError:
            pass
        else:
            if found:
                return found
        return ConnectFailed(f"the name {host} does not resolve")

    def __repr__(self) -> str:
        return f"<Names known={len(self._worked)} asking={len(self._asking)}>"


@lru_cache(_MOST)
def is_address(host: str) -> bool:
    """Whether it is an address, and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
