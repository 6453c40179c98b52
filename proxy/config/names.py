"""Names of hosts that may end up at a stranger: relative names that the public DNS is asked for too.

A name without a final dot is looked up below the domains of the resolver's search list. When none of them has
it, which in a cluster is so whenever a pod is replaced, it is looked up as it is: `chat-0.chat` then belongs
to the top-level domain `chat`, and whoever answers there gets the requests. Nothing tells whether a name was
meant so, as `a.example.com` is. So a backend's is doubted if it is relative: requests with cookies go there,
and one dot says what is meant. Any other is if it has just two labels, for a service is rarely at the apex of
a domain, or if the resolver of this machine tries its search list first. Never doubted: absolute names,
addresses, single labels, and names below a domain that the public DNS does not have.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from proxy.config.address import is_ip
from proxy.config.models import Config

# RFC 2606, 6761, 6762 (appendix G too), 8375 and ICANN's `internal`: never delegated, or not on purpose.
_PRIVATE = {
    *("alt", "arpa", "corp", "example", "home", "internal", "intranet", "invalid"),
    *("lan", "local", "localdomain", "localhost", "onion", "private", "test"),
}
_FEW_DOTS = 1  # as in `chat-0.chat` and `example.com`


@dataclass(frozen=True, slots=True)
class Resolver:
    """What decides how this machine looks up a relative name: resolv.conf(5)."""

    search: tuple[str, ...] = ()
    ndots: int = 1

    @classmethod
    def of_system(cls, file: Path = Path("/etc/resolv.conf")) -> Self:
        """As the file says; without one there is no search list."""
        try:
            return cls.parse(file.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return cls()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of the file; the last `search` or `domain` counts."""
        lists = re.findall(r"^(?:search|domain)\b(.*)$", text, re.MULTILINE)
        ndots = re.findall(r"^options\b.*?\sndots:([0-9]+)\b", text, re.MULTILINE)
        search = tuple(domain for domain in (lists or [""])[-1].split() if domain != ".")
        return cls(search, int(ndots[-1]) if ndots else 1)

    def doubts(self, host: str) -> bool:
        """Whether a name may be meant relative to a domain and yet reach the public DNS."""
        dots = host.count(".")
        return _is_relative(host) and (dots == _FEW_DOTS or (bool(self.search) and dots < self.ndots))


def _is_relative(host: str) -> bool:
    """Whether a name has no final dot and the public DNS could have it."""
    last = host.rpartition(".")[2].lower()
    return "." in host and bool(last) and last not in _PRIVATE and not is_ip(host)


def doubt_of_backend(key: str, host: str) -> str | None:
    """What to say of the host of a backend, which stands at a key; None: nothing."""
    return _words(key, host) if _is_relative(host) else None


def _words(key: str, host: str) -> str:
    return (
        f"{key}: {host} is a relative name: when no search domain has it, the public DNS is asked, and "
        f'whoever answers there gets the requests. Write an absolute name, which ends with a dot: "{host}." '
        'or, in Kubernetes, "POD.SERVICE.NAMESPACE.svc.cluster.local."'
    )


def doubts(config: Config, resolver: Resolver | None = None) -> Iterator[str]:
    """Yield what to say of all hosts that a configuration names."""
    resolver = resolver or Resolver.of_system()
    for key, host in _backends(config):
        if text := doubt_of_backend(key, host):
            yield text
    for key, host in _others(config):
        if resolver.doubts(host):
            yield _words(key, host)


def _backends(config: Config) -> Iterator[tuple[str, str]]:
    for index, backend in enumerate(config.backends):
        yield f"backends[{index}].url", backend.address.host
    yield "discovery.dns.name", config.discovery.dns.name or ""


def _others(config: Config) -> Iterator[tuple[str, str]]:
    redis = config.affinity.directory.redis
    urls = {
        "affinity.directory.redis": redis.get_secret_value() if redis else "",
        "sessions.store": config.sessions.store.get_secret_value(),
        "otel.endpoint": config.otel.endpoint or "",
    }
    for key, url in urls.items():
        yield key, urlsplit(url).hostname or ""
