"""Names of hosts that may end up at a stranger: relative names that the public DNS is asked for too.

A name without a final dot is looked up below the domains of the resolver's search list. When none of them has
it, which in a cluster is so whenever a pod is replaced, it is looked up as it is: `chat-0.chat` then belongs
to the top-level domain `chat`, and whoever answers there gets the requests. Nothing tells whether a name was
meant so, as `a.example.com` is. So one is doubted if it has just two labels, for an instance is rarely at
the apex of a domain, or if the resolver of this machine tries its search list first. Never doubted: absolute
names, addresses, single labels, and names below a domain that the public DNS does not have.
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
        if not dots or host.endswith(".") or host.rpartition(".")[2].lower() in _PRIVATE or is_ip(host):
            return False
        return dots == _FEW_DOTS or (bool(self.search) and dots < self.ndots)


def doubt(key: str, host: str, resolver: Resolver) -> str | None:
    """What to say of the host at a key, None: nothing."""
    if not resolver.doubts(host):
        return None
    return (
        f"{key}: {host} is a relative name: when no search domain has it, the public DNS is asked, and "
        f'whoever answers there gets the requests. Write an absolute name, which ends with a dot: "{host}." '
        'or, in Kubernetes, "POD.SERVICE.NAMESPACE.svc.cluster.local."'
    )


def doubts(config: Config, resolver: Resolver | None = None) -> Iterator[str]:
    """Yield what to say of all hosts that a configuration names."""
    resolver = resolver or Resolver.of_system()
    for key, host in _hosts(config):
        if text := doubt(key, host, resolver):
            yield text


def _hosts(config: Config) -> Iterator[tuple[str, str]]:
    for index, backend in enumerate(config.backends):
        yield f"backends[{index}].url", backend.address.host
    redis = config.affinity.directory.redis
    urls = {
        "affinity.directory.redis": redis.get_secret_value() if redis else "",
        "sessions.store": config.sessions.store.get_secret_value(),
        "otel.endpoint": config.otel.endpoint or "",
    }
    for key, url in urls.items():
        yield key, urlsplit(url).hostname or ""
    yield "discovery.dns.name", config.discovery.dns.name or ""
