"""PROXY headers: who is named, where they end, and what is none."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.proxy_protocol import LONGEST, SIGNATURE, ProxyHeader, ProxyHeaderError, read_proxy_header

V4 = ipaddress.IPv4Address("203.0.113.7").packed + ipaddress.IPv4Address("10.0.0.1").packed
V6 = ipaddress.IPv6Address("2001:db8::7").packed + ipaddress.IPv6Address("fd00::1").packed
MAPPED = str(ipaddress.IPv6Address("::ffff:203.0.113.7"))  # from Python 3.13 on with dots
PORTS = b"\x12\x34\x01\xbb"
EXTENSION = b"\x04\x00\x03abc"  # PP2_TYPE_NOOP


def binary(command: int, family: int, block: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + bytes((command, family)) + len(block).to_bytes(2, "big") + block


GOOD = [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", "203.0.113.7"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::7 fd00::1 0 1\r\n", "2001:db8::7"),
    (b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n", "ffff:" * 7 + "ffff"),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 1\r\n", MAPPED),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", ""),
    (binary(0x21, 0x11, V4 + PORTS), "203.0.113.7"),
    (binary(0x21, 0x11, V4 + PORTS + EXTENSION), "203.0.113.7"),
    (binary(0x21, 0x21, V6 + PORTS), "2001:db8::7"),
    (binary(0x21, 0x21, V6 + PORTS + EXTENSION * 50), "2001:db8::7"),
    (binary(0x21, 0x31, b"/run/client".ljust(108, b"\0") * 2), ""),
    (binary(0x21, 0x00, b""), ""),
    (binary(0x20, 0x00, b""), ""),
    (binary(0x20, 0x11, V4 + PORTS), ""),
]
BAD = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",  # a TLS ClientHello
    b"proxy TCP4 203.0.113.7 10.0.0.1 1 1\r\n",
    b"PROXY\tTCP4 203.0.113.7 10.0.0.1 1 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 1 1\r\n",
    b"PROXY TCP4  203.0.113.7 10.0.0.1 1 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 01 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 203.0.113.07 10.0.0.1 1 1\r\n",
    b"PROXY TCP4 203.0.113.256 10.0.0.1 1 1\r\n",
    b"PROXY TCP4 2001:db8::7 fd00::1 1 1\r\n",
    b"PROXY TCP6 203.0.113.7 10.0.0.1 1 1\r\n",
    b"PROXY TCP6 fe80::1%eth0 fd00::1 1 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 1\n" + b" " * 100,
    b"PROXY UDP4 203.0.113.7 10.0.0.1 1 1\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN " + b"x" * 107,
    b"PROXY UNKNOWN a\nGET / HTTP/1.1\r\n",
    SIGNATURE[:11] + b"\r",
    binary(0x11, 0x11, V4 + PORTS),
    binary(0x22, 0x11, V4 + PORTS),
    binary(0x21, 0x12, V4 + PORTS),
    binary(0x21, 0x41, V4 + PORTS),
    binary(0x21, 0x11, (V4 + PORTS)[:-1]),
    binary(0x21, 0x21, (V6 + PORTS)[:-1]),
    binary(0x20, 0x00, b"x" * LONGEST),
]


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_good_headers(header: bytes, client: str) -> None:
    """The client is the source address; the header ends where it says, whatever follows."""
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", header):
        assert read_proxy_header(header + rest) == ProxyHeader(len(header), client)


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_byte_by_byte(header: bytes, client: str) -> None:
    """Nothing is told before the last byte has come, and nothing is refused."""
    for end in range(len(header)):
        assert read_proxy_header(header[:end]) is None
    assert read_proxy_header(header) == ProxyHeader(len(header), client)


@pytest.mark.parametrize("header", BAD)
def test_bad_headers(header: bytes) -> None:
    """What is not exactly a header is refused, in whole and byte by byte."""
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(header)
    with pytest.raises(ProxyHeaderError):
        _ = [read_proxy_header(header[:end]) for end in range(len(header) + 1)]


def test_the_wait_for_a_header_is_bounded() -> None:
    """No more bytes than the longest header are ever waited for."""
    assert read_proxy_header(b"PROXY UNKNOWN ".ljust(106, b"x")) is None
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(b"PROXY UNKNOWN ".ljust(107, b"x"))
    assert read_proxy_header(binary(0x21, 0x11, V4.ljust(LONGEST - 16))[:-1]) is None


@given(st.ip_addresses(), st.ip_addresses(v=4), st.integers(0, 65535), st.booleans())
def test_what_is_written_is_read(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
    other: ipaddress.IPv4Address,
    port: int,
    as_text: bool,
) -> None:
    """Every address is read back from either version."""
    is_v4 = isinstance(client, ipaddress.IPv4Address)
    target = other if is_v4 else ipaddress.IPv6Address(int(other))
    if as_text:
        header = f"PROXY TCP{client.version} {client} {target} {port} {port}\r\n".encode()
    else:
        block = client.packed + target.packed + port.to_bytes(2, "big") * 2
        header = binary(0x21, 0x11 if is_v4 else 0x21, block)
    assert read_proxy_header(header + b"rest") == ProxyHeader(len(header), str(client))


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    """Random bytes, also behind a good start, are a header, the start of one, or refused."""
    for start in (b"", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00\x0c"):
        try:
            header = read_proxy_header(start + data)
        except ProxyHeaderError:
            continue
        assert header is None or header.length <= len(start + data)
