"""Pins: the tokens that a sid and the pin cookie carry."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.affinity.pins import join_pin, pin_token, split_pin

NAMES = st.text("abcXYZ019._:-", min_size=1, max_size=63)
SIDS = st.text("abcXYZ019-_", min_size=1, max_size=40).map(str.encode)


@given(NAMES, st.binary(max_size=80))
def test_a_token_fits_a_query_and_a_cookie(name: str, secret: bytes) -> None:
    """Twelve characters that are quoted nowhere, and equal for equal names and secrets in every proxy."""
    token = pin_token(name, secret)
    assert re.fullmatch(rb"[A-Za-z0-9_-]{12}", token)
    assert token == pin_token(name, secret)


@given(st.sets(NAMES, min_size=2, max_size=20))
def test_backends_have_tokens_of_their_own(names: set[str]) -> None:
    """No two names share a token."""
    assert len({pin_token(name) for name in names}) == len(names)


@pytest.mark.parametrize("secret", [b"s", b"s" * 64, b"s" * 65, b"t" * 65, b"s" * 66])
def test_a_secret_makes_other_tokens(secret: bytes) -> None:
    """Without the secret nobody can tell the token of a name; a secret may have any length."""
    others = [pin_token("a", other) for other in (b"", b"s", b"s" * 64, b"s" * 65, b"t" * 65, b"s" * 66)]
    assert others.count(pin_token("a", secret)) == 1


@given(NAMES, SIDS)
def test_a_pinned_sid_is_told_apart(name: str, sid: bytes) -> None:
    """What is joined is split again; a sid without a pin has an empty token."""
    token = pin_token(name)
    assert split_pin(join_pin(token, sid)) == (token, sid)
    assert split_pin(sid) == (b"", sid)


@pytest.mark.parametrize(
    ("pinned", "parts"),
    [
        (b"", (b"", b"")),
        (b".", (b"", b"")),
        (b".s", (b"", b"s")),
        (b"t.", (b"t", b"")),
        (b"t.a.b", (b"t", b"a.b")),
    ],
)
def test_odd_sids(pinned: bytes, parts: tuple[bytes, bytes]) -> None:
    """Any bytes are split; what the parts are worth the router finds out."""
    assert split_pin(pinned) == parts
