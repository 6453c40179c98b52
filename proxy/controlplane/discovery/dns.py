"""`discovery.dns`: the addresses of a name, asked again when the answer has grown old.

An answer is believed for its time to live, within `shortest` and `longest`. One that is empty, late or an
error changes nothing, the last good list stays. SRV records hold a name and a port for each backend, and it
is called by them: an instance that comes back at another address under its name keeps its pins. Their targets
are asked of the same servers. RFC 2782: only those of the lowest priority are taken; a weight of 0 is a very
small one.
"""

import asyncio

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from proxy.backoff import SPREAD, Backoff
from proxy.config import BackendSettings
from proxy.config.sections import DnsSettings
from proxy.controlplane.discovery.source import Backends, Found, Source, backend_at

_REASONS: dict[type[Exception], str] = {
    dns.resolver.NXDOMAIN: "there is no such name",
    dns.resolver.NoAnswer: "the name has no such records",
    dns.resolver.NoNameservers: "no server could answer",
    dns.exception.Timeout: "no server answered in time",
}
_SMALLEST = 0.01  # the weight of a record with 0, beside others
_MOST = 100.0  # as `backends.weight` has it


class DnsSource(Source):
    """Asks for one name."""

    def __init__(self, settings: DnsSettings, found: Found) -> None:
        super().__init__("dns", found)
        self._settings = settings

    async def run(self) -> None:
        """Ask now and whenever the answer has grown old, until cancelled."""
        settings = self._settings
        backoff = Backoff(settings.shortest, settings.longest, SPREAD)
        while True:
            try:
                backends, lifetime = await self._ask()
            except (dns.exception.DNSException, OSError, ValueError) as error:
                self.fail(f"{settings.name} {settings.records.upper()}: {_reason(error)}")
                pause = backoff.pause()
            else:
                self.tell(backends)
                backoff.reset()
                pause = min(max(lifetime, settings.shortest), settings.longest)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The resolver waits by `wait_for`, which before Python 3.12 loses a cancellation that comes
                # together with the answer.
                raise asyncio.CancelledError
            await asyncio.sleep(pause)

    async def _ask(self) -> tuple[Backends, float]:
        """The backends there are, and how long that is to be believed. Raises DNSException and others."""
        # Anew each time: the servers of the system may be others by now.
        resolver = dns.asyncresolver.Resolver(configure=not self._settings.servers)
        if self._settings.servers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(server.host, server.port) for server in self._settings.servers
            ]
        if self._settings.records == "srv":
            backends, lifetime = await self._services(resolver)
        else:
            addresses, lifetime = await self._addresses(
                resolver, str(self._settings.name), self._settings.records
            )
            backends = [backend_at(address, self._settings.port or 0) for address in addresses]
        return tuple(sorted(backends, key=lambda backend: backend.name)), lifetime

    async def _addresses(
        self, resolver: dns.asyncresolver.Resolver, name: str, records: str
    ) -> tuple[list[str], float]:
        answer = await resolver.resolve(name, records, search=True)
        return sorted(record.address for record in answer), answer.chaining_result.minimum_ttl

    async def _services(self, resolver: dns.asyncresolver.Resolver) -> tuple[list[BackendSettings], float]:
        answer = await resolver.resolve(str(self._settings.name), "SRV", search=True)
        records = [record for record in answer if isinstance(record, SRV) and record.target.to_text() != "."]
        if not records:
            raise ValueError("the service is decidedly not available")  # RFC 2782: its target is the root
        best = min(record.priority for record in records)
        records = [record for record in records if record.priority == best]
        mean = sum(record.weight for record in records) / len(records)
        lifetimes = [float(answer.chaining_result.minimum_ttl)]
        backends = []
        targets = await asyncio.gather(*(self._target(resolver, record) for record in records))
        for record, (address, lifetime) in zip(records, targets, strict=True):
            weight = min(max(record.weight / mean, _SMALLEST), _MOST) if mean else 1.0
            name = f"{record.target.to_text(omit_final_dot=True)}:{record.port}"
            backends.append(backend_at(address, record.port, name, round(weight, 3)))
            lifetimes.append(lifetime)
        return backends, min(lifetimes)

    async def _target(self, resolver: dns.asyncresolver.Resolver, record: SRV) -> tuple[str, float]:
        """One address of a target: the least, so that all proxies take the same."""
        name = record.target.to_text()
        try:
            addresses, lifetime = await self._addresses(resolver, name, "A")
        except dns.resolver.NoAnswer:
            addresses, lifetime = await self._addresses(resolver, name, "AAAA")
        return addresses[0], lifetime


def _reason(error: Exception) -> str:
    """Why there is no answer, without what differs each time."""
    return next((text for kind, text in _REASONS.items() if isinstance(error, kind)), str(error))
