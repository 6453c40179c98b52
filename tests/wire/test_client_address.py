"""Who asks, as trusted proxies tell it: X-Forwarded-For is read from its end, and cannot be spoofed."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.fields import Fields
from proxy.wire.forwarding import IPAddress, Origin, client_address

TRUSTED = ipaddress.ip_network("10.0.0.0/8")
TRUSTED_6 = ipaddress.ip_network("fd00::/8")
PROXY = Origin("10.0.0.1", b"http", trusted=True)
STRANGER = Origin("192.0.2.1", b"http", trusted=False)


def is_trusted(address: IPAddress) -> bool:
    """The networks of our proxies."""
    return address in TRUSTED or address in TRUSTED_6


def asked(*values: str, origin: Origin = PROXY) -> str:
    """Who asks, by these X-Forwarded-For fields."""
    block = "".join(f"X-Forwarded-For: {value}\r\n" for value in values)
    return client_address(Fields(block.encode("latin-1")), origin, is_trusted)


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ((), "10.0.0.1"),
        (("203.0.113.7",), "203.0.113.7"),
        (("203.0.113.7, 10.0.0.2",), "203.0.113.7"),
        (("203.0.113.7", "10.0.0.2,10.0.0.3"), "203.0.113.7"),
        (("10.0.0.9, 10.0.0.2",), "10.0.0.9"),
        (("2001:db8::7, fd00::2",), "2001:db8::7"),
        (("203.0.113.7:4711",), "203.0.113.7"),
        (("[2001:db8::7]:4711, [fd00::2]",), "2001:db8::7"),
        (("::ffff:203.0.113.7, ::ffff:10.0.0.2",), "203.0.113.7"),
        (("2001:DB8:0::7",), "2001:db8::7"),
    ],
)
def test_the_chain_is_walked_over_our_proxies(values: tuple[str, ...], address: str) -> None:
    """The client is the nearest address that is none of ours; all ours, it is the furthest of them."""
    assert asked(*values) == address


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (("1.1.1.1, 203.0.113.7",), "203.0.113.7"),  # what a client made up stands before its address
        (("10.0.0.5, 203.0.113.7",), "203.0.113.7"),
        (("1.1.1.1", "203.0.113.7, 10.0.0.2"), "203.0.113.7"),
        (("1.1.1.1, 10.0.0.7, 203.0.113.7, 10.0.0.2",), "203.0.113.7"),
        (("1.1.1.1, unknown",), "10.0.0.1"),  # nobody knows: the proxy that said so
        (("1.1.1.1, unknown, 10.0.0.2",), "10.0.0.2"),
        (("1.1.1.1, ",), "10.0.0.1"),
        (("1.1.1.1, _hidden, 10.0.0.3",), "10.0.0.3"),
        (("1.1.1.1, 203.0.113.7:x",), "10.0.0.1"),
        (("1.1.1.1, 999.0.0.1",), "10.0.0.1"),
        (("1.1.1.1, \xff",), "10.0.0.1"),
        (("1.1.1.1, " + "9" * 5000,), "10.0.0.1"),
    ],
)
def test_what_a_client_says_is_not_believed(values: tuple[str, ...], address: str) -> None:
    """A client can write into the field only before its own address, and there nothing is read."""
    assert asked(*values) == address


@given(st.lists(st.text("0123456789abcdef.:, []x", max_size=30), max_size=4))
def test_no_prefix_changes_the_answer(made_up: list[str]) -> None:
    """Whatever a client sends, our proxies add its true address behind it, and that is taken."""
    assert asked(*made_up, "203.0.113.7, 10.0.0.2") == "203.0.113.7"
    assert asked(",".join([*made_up, "203.0.113.7"])) == "203.0.113.7"


def test_strangers_are_who_they_are() -> None:
    """From a peer that is not trusted the field is not read."""
    assert asked("203.0.113.7", origin=STRANGER) == "192.0.2.1"


def test_a_socket_file_is_walked_too() -> None:
    """A proxy on a socket file has no address of its own."""
    unix = Origin("unix", b"http", trusted=True)
    assert (asked("203.0.113.7", origin=unix), asked(origin=unix)) == ("203.0.113.7", "unix")


def counted(hops: int, *values: str) -> str:
    """Who asks, where it is known how many addresses those in front add."""
    return asked(*values, origin=Origin("10.0.0.1", b"http", trusted=True, hops=hops))


@pytest.mark.parametrize(
    ("hops", "values", "address"),
    [
        (1, ("203.0.113.7",), "203.0.113.7"),
        (1, ("1.1.1.1, 203.0.113.7",), "203.0.113.7"),
        (2, ("203.0.113.7, 198.51.100.1",), "203.0.113.7"),  # as Google's balancer
        (2, ("1.1.1.1, 203.0.113.7,198.51.100.1",), "203.0.113.7"),
        (2, ("1.1.1.1", "203.0.113.7", "198.51.100.1"), "203.0.113.7"),
        (2, ("203.0.113.7, 10.0.0.9",), "203.0.113.7"),  # of ours or not
        (2, ("10.0.0.8, 10.0.0.9",), "10.0.0.8"),  # a client in our own network
        (3, ("203.0.113.7, 198.51.100.1",), "203.0.113.7"),  # there are no more
        (2, (), "10.0.0.1"),  # the proxy itself asks
        (2, ("203.0.113.7, unknown",), "10.0.0.1"),
        (2, ("unknown, 198.51.100.1",), "198.51.100.1"),
        (2, ("203.0.113.7:4711, [2001:db8::1]:443",), "203.0.113.7"),
    ],
)
def test_where_those_in_front_are_counted(hops: int, values: tuple[str, ...], address: str) -> None:
    """So many addresses are taken from the end, whatever networks they are of, and nothing before them."""
    assert counted(hops, *values) == address


@given(st.lists(st.text("0123456789abcdef.:, []x", max_size=30), max_size=4))
def test_no_prefix_changes_who_is_counted(made_up: list[str]) -> None:
    """Whatever a client sends, the proxies in front add their addresses behind it."""
    assert counted(2, *made_up, "203.0.113.7, 198.51.100.1") == "203.0.113.7"
    assert counted(1, ",".join([*made_up, "203.0.113.7"])) == "203.0.113.7"


def test_strangers_are_who_they_are_where_hops_are_counted() -> None:
    """Only trusted peers are believed, however many hops there are."""
    stranger = Origin("192.0.2.1", b"http", trusted=False, hops=2)
    assert asked("203.0.113.7, 198.51.100.1", origin=stranger) == "192.0.2.1"
