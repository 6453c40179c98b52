"""Cookies as the proxy reads, takes out and sets them (RFC 6265).

Values are opaque bytes; a pair that is malformed is left as it is, the backend may know what it means.
"""

CHAINLIT_SESSION = b"X-Chainlit-Session-id"  # chainlit/server.py, set_session_cookie


def get_cookie(header: bytes, name: bytes) -> bytes | None:
    """The value of the first cookie `name` in a Cookie header's value; quotes are taken off."""
    if name not in header:
        return None
    for pair in header.split(b";"):
        if name in pair:
            key, equals, value = pair.partition(b"=")
            if equals and key.strip(b" \t") == name:
                return value.strip(b' \t"')
    return None


def without_cookie(header: bytes, name: bytes) -> bytes:
    """The Cookie header's value without the cookies called `name`."""
    if name not in header:
        return header
    pairs = header.split(b";")
    return b";".join([pair for pair in pairs if name not in pair or _name_of(pair) != name]).strip(b" \t")


def _name_of(pair: bytes) -> bytes | None:
    name, equals, _ = pair.partition(b"=")
    return name.strip(b" \t") if equals else None


def pin_cookie(name: bytes, value: bytes, *, secure: bool) -> bytes:
    """The Set-Cookie line of the pin cookie, with CRLF.

    Over TLS it must live in a widget on another site too, hence None and Partitioned (CHIPS).
    """
    policy = b"Secure; SameSite=None; Partitioned" if secure else b"SameSite=Lax"
    return b"Set-Cookie: %b=%b; Path=/; HttpOnly; %b\r\n" % (name, value, policy)
