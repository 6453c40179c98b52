"""Durations and sizes with units, as the file and options have them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.units import seconds, size


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("500ms", 0.5),
        ("700ms", 0.7),
        ("0s", 0),
        ("30s", 30),
        ("30 s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1m30s", 90),
        ("1h 5m", 3900),
        ("1d2h3m4s5ms", 93_784.005),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, meant: float) -> None:
    """The larger unit stands first, and the sum is exact where it can be written so."""
    assert seconds(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "s",
        "5x",
        "5S",
        "5M",
        "-5s",
        "5s5s",
        "30s1m",
        ".5s",
        "5.s",
        "1_0s",
        "30 lightyears",
        "٣s",
    ],
)
def test_what_is_no_duration(text: str) -> None:
    """A number alone is not read here, and nothing is guessed."""
    assert seconds(text) is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *((text, 32 << 10) for text in ("32k", "32K", "32kb", "32KB", "32KiB", "32 k")),
        *((text, 512 << 20) for text in ("512m", "512MB", "512MiB", "0.5g", "0.5 GiB")),
        ("1T", 1 << 40),
        ("5B", 5),
        ("1.3k", 1331),
    ],
)
def test_a_size_is_a_number_with_a_unit(text: str, meant: int) -> None:
    """Units are powers of 1024 however they are written, and the size is whole bytes."""
    assert size(text) == meant
    assert isinstance(size(text), int)


@pytest.mark.parametrize("text", ["", "5", "k", "5x", "5 MBit", "-5k", "5kk", "1k1k", "5ib", "1,5k"])
def test_what_is_no_size(text: str) -> None:
    """A number alone is not read here, and nothing is guessed."""
    assert size(text) is None


@given(st.text("0123456789.kKmMgGiIbBsdh ", max_size=12))
def test_any_text_is_read_or_not(text: str) -> None:
    """No text breaks a reader, and what is read is no negative number."""
    assert (seconds(text) or 0) >= 0
    assert (size(text) or 0) >= 0
