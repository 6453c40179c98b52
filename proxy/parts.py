"""The parts of one proxy process: made, joined to each other, and configured, at the start as at a reload.

No part knows who joined it: each takes the narrow things that it needs. `App` gives them ports and a life.
"""

import time
from functools import partial
from ssl import TLSVersion

from proxy.affinity.backend import Backend
from proxy.affinity.directory import Directory
from proxy.affinity.fleet import Fleet
from proxy.affinity.health import HealthRules, Observation
from proxy.affinity.placement import Placement
from proxy.affinity.router import Router
from proxy.affinity.standstill import Standstill
from proxy.changes import Changes
from proxy.config import Config
from proxy.config.problems import key_text
from proxy.controlplane.certificate_store import CertificateStore
from proxy.controlplane.drains import Drains
from proxy.controlplane.events import EventKind, EventLog
from proxy.controlplane.membership import Member, Membership, trusted
from proxy.controlplane.probes import Prober
from proxy.controlplane.rebalance import Rebalance
from proxy.controlplane.recent import Recent
from proxy.controlplane.reload import ReloadCounts
from proxy.controlplane.renewals import Renewals
from proxy.controlplane.wants import Lateness, Wants
from proxy.dataplane.fetch import ask
from proxy.dataplane.plane import Plane
from proxy.exchange_log import ExchangeLog
from proxy.figures import Figures
from proxy.metrics import ProxyCollector
from proxy.output import lines_dropped
from proxy.probe_times import ProbeTimes
from proxy.tls import Certificate, Certificates


class Parts:
    """All of them; made by the app, and by tests that need no process."""

    def __init__(self, config: Config) -> None:
        """Raises CertificateError."""
        self.fleet = Fleet(HealthRules())
        # By milliseconds: whoever followed the process before this one misses nothing of this one.
        self.events = EventLog(before=int(time.time() * 1000))
        self.standstill = standstill = Standstill()
        self.changes = Changes(self.fleet, self.events)  # told first, so that lost sessions still count
        affinity = config.affinity
        directory = Directory(affinity.directory.size, affinity.session_timeout)
        self.router = Router(self.fleet, directory, Placement())
        self.exchange_log = ExchangeLog(config)
        self.probe_times = times = ProbeTimes()
        lateness = Lateness()
        self.prober = Prober(self.fleet, config, ask, partial(_probed, times, lateness), standstill.measure)
        listener, stood = self.exchange_log.listener, standstill.measure
        self.plane = Plane(config, self.router, listener, self.prober.suspect, stood)
        self.plane.certificates = certificates_of(config)
        self.renewals = Renewals(partial(self.events.record, EventKind.CERTIFICATE))
        self.plane.listeners.answer = self.renewals.answer
        watch = self.prober.suspect
        self.drains = Drains(
            self.fleet, self.plane.evictions, emptied=self._emptied, watch=watch, stood=stood
        )
        self.prober.awaits_restart = self.drains.awaits_restart
        hand_overs = self.plane.site.hand_overs
        hand_overs.is_shared = lambda: self.drains.shared
        hand_overs.counts.tell = partial(self.events.record, EventKind.HAND_OVER)
        self.rebalance = Rebalance(self.fleet, self.router.placement, self.plane.evictions)
        scaling = partial(self.events.record, EventKind.SCALING)
        waiting = self.plane.site.doorway.queue
        self.wants = Wants(self.fleet, directory.answering, directory.open, lateness, scaling, waiting)
        self.membership = Membership(self.fleet, self.drains, self.prober, self.plane.site.moved)
        self.reload_counts = ReloadCounts()
        self.collector = ProxyCollector(
            self.plane,
            self.drains,
            self.reload_counts,
            self.membership.sources,
            times,
            lines_dropped,
            standstill,
            self.renewals.counts,
            self.not_ready,
            lambda: self.changes.leaving,
            self.wants,
        )
        self.figures = Figures(self.plane, times)
        self.recent = Recent(self.figures.counted)
        for move_on in (self.fleet.stood, self.drains.move_on, self.plane.move_on):
            standstill.listen(move_on)
        self.configure(config, trusted(config.backends))

    def configure(self, config: Config, members: tuple[Member, ...]) -> None:
        """Go by this configuration; `members` are its backends. The plane follows with its listeners."""
        self.exchange_log.configure(config)
        self.plane.site.access = self.exchange_log.listener
        self.fleet.configure(config)
        self.router.configure(config)
        self.plane.site.shared.configure(config)
        self.drains.configure(config)
        self.rebalance.configure(config)
        self.wants.configure(config)
        self.membership.configure(members, config.discovery)
        self.renewals.configure(config.tls.acme)
        self.prober.configure(config)

    def not_ready(self) -> str:
        """Why no new clients should be sent here, "" if they may."""
        if self.changes.leaving:
            return "leaving"
        if not any(backend.takes_sessions for backend in self.fleet):
            return "no backend takes sessions"
        return ""

    def _emptied(self, backend: Backend) -> None:
        """A drained backend has no sessions any more: one that was to leave the fleet does."""
        drain = self.drains.get(backend)
        if drain is not None:
            self.events.record(EventKind.DRAIN, drain.told, backend.name)
        if backend.leaving:
            self.fleet.remove(backend)

    def __repr__(self) -> str:
        return f"<Parts {self.fleet!r}>"


def _probed(
    times: ProbeTimes, lateness: Lateness, backend: Backend, met: Observation, seconds: float
) -> None:
    """A probe has ended."""
    times.add(backend, met, seconds)
    if met is Observation.ANSWERED:
        lateness.add(backend, seconds)


def certificates_of(config: Config) -> Certificates | None:
    """The certificates of the TCP listeners. Raises CertificateError."""
    settings = config.tls
    minimum = TLSVersion.TLSv1_3 if settings.min_version == "1.3" else TLSVersion.TLSv1_2
    http2 = settings.http2
    pairs = [
        Certificate(cert, key, minimum, key_text(place), http2=http2) for place, cert, key in settings.pairs()
    ]
    if settings.acme.domains:
        store = CertificateStore(settings.acme)
        store.prepare()
        pairs.append(Certificate(str(store.pair), str(store.pair), minimum, "tls.acme", http2=http2))
    return Certificates(pairs) if pairs else None
