"""Cookies as the proxy reads, takes out and sets them (RFC 6265).

Values are opaque bytes; a pair that is malformed is left as it is, the backend may know what it means.
"""

CHAINLIT_SESSION = b"X-Chainlit-Session-id"  # chainlit/server.py, set_session_cookie


def get_cookie(header: bytes, name: bytes) -> bytes | None:
    """The value of the first cookie `name` in a Cookie header's value; quotes are taken off."""
    place = _find(header, name, 0)
    return header[place[0] : place[1]].partition(b"=")[2].strip(b' \t"') if place is not None else None


def without_cookie(header: bytes, name: bytes) -> bytes:
    """The Cookie header's value without the cookies called `name`."""
    place = _find(header, name, 0)
    if place is None:
        return header
    kept: list[bytes] = []
    begun = 0
    while place is not None:
        start, end = place
        if start > begun:
            kept.append(header[begun : start - 1])
        begun = end + 1
        place = _find(header, name, begun)
    if begun <= len(header):
        kept.append(header[begun:])
    return b";".join(kept).strip(b" \t")


def _find(header: bytes, name: bytes, begun: int) -> tuple[int, int] | None:
    """Where the first pair called `name` begins and ends, from `begun` on, where a pair does.

    It is the name that is searched for: the other cookies are long, and several.
    """
    at = header.find(name, begun)
    while at >= 0:
        start, end = header.rfind(b";", begun, at) + 1 or begun, header.find(b";", at)
        if end < 0:
            end = len(header)
        key, equals, _ = header[start:end].partition(b"=")
        if equals and key.strip(b" \t") == name:
            return start, end
        at = header.find(name, end)
    return None


def pin_cookie(name: bytes, value: bytes, *, secure: bool) -> bytes:
    """The Set-Cookie line of the pin cookie, with CRLF."""
    return b"Set-Cookie: %b=%b; Path=/; HttpOnly; %b\r\n" % (name, value, _policy(secure=secure))


def ticket_cookie(name: bytes, value: bytes, seconds: int, *, secure: bool) -> bytes:
    """The same of a ticket of the queue, which is good for so many seconds."""
    policy = _policy(secure=secure)
    return b"Set-Cookie: %b=%b; Path=/; HttpOnly; Max-Age=%d; %b\r\n" % (name, value, seconds, policy)


def _policy(*, secure: bool) -> bytes:
    """Over TLS they must live in a widget on another site too, hence None and Partitioned (CHIPS)."""
    return b"Secure; SameSite=None; Partitioned" if secure else b"SameSite=Lax"
