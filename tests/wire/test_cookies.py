"""Cookies that are read, taken out and set (RFC 6265)."""

from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.cookies import get_cookie, pin_cookie, without_cookie

# a Cookie header, the value of `pin` in it, the header without `pin`
TABLE = [
    (b"", None, b""),
    (b"pin=x", b"x", b""),
    (b"a=1; pin=x; b=2", b"x", b"a=1; b=2"),
    (b"pin=x; a=1", b"x", b"a=1"),
    (b"a=1; pin=x", b"x", b"a=1"),
    (b"a=1;pin=x;b=2", b"x", b"a=1;b=2"),
    (b"a=1; pin=x; b=2; pin=y", b"x", b"a=1; b=2"),
    (b"a=pin; pinned=1; xpin=2; Pin=3", None, b"a=pin; pinned=1; xpin=2; Pin=3"),
    (b'pin="x"; a="b c"', b"x", b'a="b c"'),
    (b"pin =x ; a=1", b"x", b"a=1"),
    (b"pin=", b"", b""),
    (b"pin=a=b==", b"a=b==", b""),
    (b"pin; a=1", None, b"pin; a=1"),
    (b"; ;a=1;;pin=x", b"x", b"; ;a=1;"),
    (b"a=\xff\x80; pin=\xfe", b"\xfe", b"a=\xff\x80"),
]


@pytest.mark.parametrize(("header", "value", "rest"), TABLE)
def test_one_cookie_is_read_and_taken_out(header: bytes, value: bytes | None, rest: bytes) -> None:
    """RFC 6265 section 4.2: the first of the name is read, all of the name go, others stay."""
    assert get_cookie(header, b"pin") == value
    assert without_cookie(header, b"pin") == rest


NAME = st.text("abcdpin-_", min_size=1, max_size=5)
VALUE = st.text("abcXYZ019-._~=!", max_size=8)


@given(st.lists(st.tuples(NAME, VALUE)), st.integers(0, 9), VALUE)
def test_taking_one_out_keeps_all_others(pairs: list[tuple[str, str]], at: int, value: str) -> None:
    """Whatever cookies there are, without ours the backend gets the others, unchanged and in order."""
    others = [f"{name}={text}" for name, text in pairs if name != "pin"]
    header = "; ".join([*others[:at], f"pin={value}", *others[at:]]).encode()
    assert get_cookie(header, b"pin") == value.encode()
    assert without_cookie(header, b"pin") == "; ".join(others).encode()


@given(st.binary(max_size=40))
def test_a_header_without_the_cookie_is_not_touched(header: bytes) -> None:
    """Malformed cookies of others are theirs to understand."""
    if b"pin" not in header:
        assert without_cookie(header, b"pin") == header


# whether the client came by TLS, the attributes
POLICIES = [
    (False, {"path": "/", "httponly": True, "samesite": "Lax", "secure": ""}),
    (True, {"path": "/", "httponly": True, "samesite": "None", "secure": True}),
]


@pytest.mark.parametrize(("secure", "attributes"), POLICIES)
def test_the_pin_cookie_lives_where_the_page_lives(secure: bool, attributes: dict[str, object]) -> None:
    """Over TLS it must live in a widget on another site; without TLS browsers would drop such a cookie."""
    line = pin_cookie(b"chainlit_pin", b"AbC-_9", secure=secure)
    assert line.startswith(b"Set-Cookie: chainlit_pin=AbC-_9; ")
    assert line.endswith(b"\r\n")
    assert (b"Partitioned" in line) == secure
    text = line.decode().strip().removeprefix("Set-Cookie: ").replace("; Partitioned", "")
    morsel = SimpleCookie(text)["chainlit_pin"]
    assert {key: morsel[key] for key in attributes} == attributes
    assert not morsel["max-age"]
    assert not morsel["expires"]
