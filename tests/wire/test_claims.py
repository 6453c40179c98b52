"""What is said of a client on its way: the fields of proxies, their twins with `_`, and the scheme."""

from time import process_time

import pytest

from proxy.wire.forwarding import IPAddress, Origin, Variant, client_address, client_scheme
from tests.wire.test_forwarding import FRIEND, STRANGER, request, sent

CLAIMS = [
    "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl",
    "X-Forwarded-Scheme", "X-Forwarded-User", "x-forwarded-anything", "X-Forwarded", "X-Real-IP",
    "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Cluster-Client-IP", "Front-End-Https",
    "X-Url-Scheme", "X-Original-URL", "X-Rewrite-URL", "X-Original-Host", "Proxy",
]  # fmt: skip
TWINS = ["X_Forwarded_For", "X-Forwarded_Proto", "x_forwarded_anything", "X_Real_IP", "front_end-https",
         "Content_Length", "Transfer_Encoding", "X_Request_ID", "Remote_User", "X_Auth_Request_Email",
         "User_Agent"]  # fmt: skip


@pytest.mark.parametrize("variant", list(Variant))
@pytest.mark.parametrize("name", [*CLAIMS, *TWINS])
def test_what_a_stranger_claims_goes_no_further(name: str, variant: Variant) -> None:
    """An app believes these of its proxy, by whatever name it finds them in an environ."""
    block = sent(f"X-A: 1\n{name}: evil\nX-B: 2", variant=variant)
    assert not [line for line in block.lines if b"evil" in line.raw]
    assert (block.get(b"x-a"), block.get(b"x-b")) == (b"1", b"2")


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_trusted_proxy_says_is_passed_on(name: str) -> None:
    """Its word is believed, as that of X-Forwarded-For is."""
    values = [line.value for line in sent(f"{name}: said", FRIEND).lines]
    assert any(value.startswith(b"said") for value in values)


@pytest.mark.parametrize("name", TWINS)
def test_no_proxy_writes_underscores(name: str) -> None:
    """What comes so from a trusted proxy is of its client, who was not meant to say it."""
    assert not [line for line in sent(f"{name}: evil", FRIEND).lines if b"evil" in line.raw]


@pytest.mark.parametrize("origin", [STRANGER, FRIEND])
def test_underscores_of_an_app(origin: Origin) -> None:
    """A name with `_` is the app's own, unless a field has the same variable."""
    kept = sent("access_token: 1\nX_Tenant: 2\nmy_x: 3", origin)
    assert [kept.get(name) for name in (b"access_token", b"x_tenant", b"my_x")] == [b"1", b"2", b"3"]
    mixed = sent("X-Tenant: 1\nX_Tenant: 2\nx_ten-ant: 3", origin)
    assert mixed.get_all(b"x-tenant") == [b"1"]
    assert mixed.get_all(b"x_tenant") == []
    assert mixed.get_all(b"x_ten-ant") == [b"3"]
    assert not sent("X_Ten-ant: 1\nX_Ten_Ant: 2", origin).get_all(b"x_ten-ant")


# what a trusted proxy says, the client's scheme
SCHEMES = [
    ("X-Forwarded-Proto: https", b"https"),
    ("X-Forwarded-Proto: https,http", b"https"),
    ("X-Forwarded-Proto: https, http, http", b"https"),
    ("X-Forwarded-Proto: http, https", b"http"),
    ("X-Forwarded-Proto: https\nX-Forwarded-Proto: http", b"https"),
    ("X-Forwarded-Proto: wss", b"https"),
    ("X-Forwarded-Proto: ws", b"http"),
    ("X-Forwarded-Proto: HTTPS", b"https"),
    ("X-Forwarded-Proto:", b"http"),
    ("X-Forwarded-Proto: gopher", b"http"),
    ("Forwarded: for=203.0.113.7;proto=https, for=10.0.0.2;proto=http", b"https"),
    ('Forwarded: for="[::1]"; Proto="https"', b"https"),
    ("Forwarded: for=203.0.113.7, for=10.0.0.2;proto=https", b"http"),
    ("Forwarded: proto=https\nX-Forwarded-Proto: http", b"http"),
    ("", b"http"),
]


@pytest.mark.parametrize(("lines", "scheme"), SCHEMES)
def test_the_scheme_is_that_of_the_client(lines: str, scheme: bytes) -> None:
    """The first value is what the client's own connection was; the backend is told one that it knows."""
    assert client_scheme(request(lines).fields, FRIEND) == scheme
    assert sent(lines, FRIEND).get_all(b"x-forwarded-proto") == [scheme]
    assert client_scheme(request(lines).fields, STRANGER) == b"http"
    assert client_scheme(request(lines).fields, Origin("192.0.2.1", b"https", trusted=False)) == b"https"


@pytest.mark.parametrize(
    ("hops", "value", "scheme"),
    [
        (1, "https", b"https"),
        (1, "https, http", b"http"),  # the first is the client's own word
        (2, "https, http", b"https"),
        (2, "http, https, http", b"https"),
        (3, "https", b"https"),
        (2, "", b"http"),
    ],
)
def test_the_scheme_where_hops_are_counted(hops: int, value: str, scheme: bytes) -> None:
    """A client can say something only before what so many proxies have added."""
    counted = Origin("10.0.0.1", b"http", trusted=True, hops=hops)
    assert client_scheme(request(f"X-Forwarded-Proto: {value}").fields, counted) == scheme


@pytest.mark.parametrize(
    ("lines", "elements"),
    [
        ("Forwarded: for=1.1.1.1;proto=https", b""),
        (
            "Forwarded: for=1.1.1.1\nX-Forwarded-For: 1.1.1.1, 9.9.9.9, 8.8.8.8",
            b"for=9.9.9.9;proto=http, for=8.8.8.8, ",
        ),
        ("X-Forwarded-For: [2001:db8::1]:80, _x", b'for="[2001:db8::1]";proto=http, for=unknown, '),
        ("X-Forwarded-For: 9.9.9.9\nX-Forwarded-Proto: https", b"for=9.9.9.9;proto=https, "),
    ],
)
def test_forwarded_where_hops_are_counted(lines: str, elements: bytes) -> None:
    """It is made of what those in front have added to X-Forwarded-For: nothing tells who wrote the rest."""
    counted = Origin("10.0.0.1", b"http", trusted=True, hops=2)
    told = sent(lines, counted).get_all(b"forwarded")
    assert told == [elements + b'for=10.0.0.1;proto=http;host="h"']


def test_many_fields_are_looked_at_once() -> None:
    """Names are compared as a whole and not each with each."""
    lines = "\n".join(f"a_{at}: 1" for at in range(10_000))
    begun = process_time()
    assert not request(lines).fields.claims(trusted=False)
    assert process_time() - begun < 1  # second; 0.03 here, and a minute otherwise


def test_proxies_in_a_row_are_bounded() -> None:
    """Who writes a thousand trusted addresses before its own is not followed through all of them."""
    chain = ",".join(["203.0.113.7"] + [f"10.0.{at // 250}.{at % 250}" for at in range(1000)])
    asked: list[IPAddress] = []

    def trusts(address: IPAddress) -> bool:
        asked.append(address)
        return True

    address = client_address(request(f"X-Forwarded-For: {chain}").fields, FRIEND, trusts)
    assert (len(asked), address[:3]) == (100, "10.")
