"""The Date of responses that came without one, and of our own (RFC 9110 section 6.6.1).

It is rendered once in a second, however many responses need it.
"""

from email.utils import formatdate
from functools import lru_cache
from time import time


def date_line() -> bytes:
    """The Date field of now, with CRLF."""
    return _line(int(time()))


@lru_cache(maxsize=1)
def _line(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()


def dated(response: bytes) -> bytes:
    """A response of our own with its Date."""
    start, _, rest = response.partition(b"\r\n")
    return b"%b\r\n%b%b" % (start, date_line(), rest)
