"""Pins: the short opaque token of a backend that a polled `sid` and the pin cookie carry.

A token is a keyed hash of the backend's name, so every proxy with the same secret reads it, no proxy has
to remember it, and with a secret set nobody can make one. A client sees `<token>.<sid>`; the dot is in
neither alphabet (Engine.IO sids are base64url, python-engineio base_server.generate_id).
"""

import base64
import hashlib

_TOKEN_BYTES = 9  # 72 bits: no two of any fleet's names meet, and 12 characters of base64 without padding


def pin_token(name: str, secret: bytes = b"") -> bytes:
    """The token of the backend called `name`."""
    # BLAKE2b takes keys of up to 64 bytes; a longer secret is folded into one.
    key = secret if len(secret) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.blake2b(secret).digest()
    digest = hashlib.blake2b(name.encode(), key=key, digest_size=_TOKEN_BYTES).digest()
    return base64.urlsafe_b64encode(digest)


def join_pin(token: bytes, sid: bytes) -> bytes:
    """The sid as the client gets it."""
    return token + b"." + sid


def split_pin(pinned: bytes) -> tuple[bytes, bytes]:
    """Token and sid of a client's sid; the token is empty if it carries none."""
    token, dot, sid = pinned.partition(b".")
    return (token, sid) if dot else (b"", pinned)
