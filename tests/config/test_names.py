"""Names that may be looked up as somebody else's: which are doubted, and what is said of them."""

from pathlib import Path

import pytest

from proxy.config import loads
from proxy.config.names import Resolver, doubt_of_backend, doubts

PLAIN = Resolver()
CLUSTER = Resolver.parse(
    "nameserver 10.96.0.10\nsearch chat.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
)


@pytest.mark.parametrize(
    ("host", "of_backend", "anywhere", "in_cluster"),
    [
        ("chat-0.chat", True, True, True),
        ("Chat-0.Chat", True, True, True),
        ("chat-0.chat.dev", True, False, True),
        ("a.example.com", True, False, True),
        ("chat-0.chat.", False, False, False),
        ("chat-0.chat.site.svc.cluster.local.", False, False, False),
        ("chat-0.chat.site.svc.cluster.local", False, False, False),
        ("a.b.c.d.e.example.com", True, False, False),
        ("chat", False, False, False),
        ("localhost", False, False, False),
        ("host.docker.internal", False, False, False),
        ("printer.LAN", False, False, False),
        ("a.home.arpa", False, False, False),
        ("10.0.0.1", False, False, False),
        ("::ffff:10.0.0.1", False, False, False),
        ("", False, False, False),
    ],
)
def test_which_names_are_doubted(host: str, *, of_backend: bool, anywhere: bool, in_cluster: bool) -> None:
    """A backend's if it is relative; others with two labels, or where the search list is tried first.

    Never what cannot be public.
    """
    assert bool(doubt_of_backend("backends[0].url", host)) is of_backend
    assert PLAIN.doubts(host) is anywhere
    assert CLUSTER.doubts(host) is in_cluster


@pytest.mark.parametrize(
    ("text", "search", "ndots"),
    [
        ("", (), 1),
        ("nameserver 127.0.0.1\n", (), 1),
        ("search a.test\nsearch b.test c.test\n", ("b.test", "c.test"), 1),
        ("domain a.test\n", ("a.test",), 1),
        ("search .\noptions edns0 ndots:2 trust-ad\n", (), 2),
        ("search\noptions ndots:x\n\n  \n# search a.test\n", (), 1),
    ],
)
def test_what_the_resolver_is_told(text: str, search: tuple[str, ...], ndots: int) -> None:
    """resolv.conf(5): the last list counts, and a line that is empty or odd says nothing."""
    assert Resolver.parse(text) == Resolver(search, ndots)


def test_a_system_without_a_file(tmp_path: Path) -> None:
    """Where no file is there is no search list."""
    assert Resolver.of_system(tmp_path / "resolv.conf") == PLAIN


def test_every_host_is_looked_at() -> None:
    """Backends, stores, the collector and the name of discovery: by its key, and without passwords."""
    text = """
    backends: [{url: "http://a.chat:1"}, {url: "http+unix:///run/a.b.sock"}, {url: "http://b:1"}]
    affinity: {directory: {redis: "redis://:hunter2@a.cache:6379"}}
    sessions: {store: "redis://:hunter2@b.cache:6379"}
    otel: {endpoint: "http://a.trace:4318"}
    discovery: {dns: {name: chat.default, port: 8000}}
    """
    told = list(doubts(loads(text), PLAIN))
    assert [line.partition(": ")[0] for line in told] == [
        "backends[0].url",
        "discovery.dns.name",
        "affinity.directory.redis",
        "sessions.store",
        "otel.endpoint",
    ]
    assert "hunter2" not in "".join(told)
    assert '"a.chat."' in told[0]


def test_nothing_is_said_of_what_is_safe() -> None:
    """The defaults and absolute names."""
    assert list(doubts(loads(""), CLUSTER)) == []
    assert (
        list(doubts(loads("backends: [{url: 'http://chat-0.chat.a.svc.cluster.local.:8000'}]"), CLUSTER))
        == []
    )
