"""What the doctor found: verdicts, findings and the report of them all. Values, without any effect."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from proxy.doctor.topics import TOPICS


class Severity(StrEnum):
    """How a check ended."""

    FAILED = "failed"
    WARNING = "warning"
    PASSED = "passed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says: `what` is one line, `evidence` the requests and answers that show it."""

    severity: Severity
    what: str
    evidence: tuple[str, ...] = ()


def passed(what: str, evidence: Iterable[str] = ()) -> Verdict:
    """It is as it should be."""
    return Verdict(Severity.PASSED, what, tuple(evidence))


def failed(what: str, evidence: Iterable[str] = ()) -> Verdict:
    """Users meet this."""
    return Verdict(Severity.FAILED, what, tuple(evidence))


def warning(what: str, evidence: Iterable[str] = ()) -> Verdict:
    """Some users meet this, or will."""
    return Verdict(Severity.WARNING, what, tuple(evidence))


def skipped(why: str) -> Verdict:
    """It was not tried, and why."""
    return Verdict(Severity.SKIPPED, why)


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict with what it means; `cause`, `advice` and `page` are empty unless it failed or warns."""

    name: str
    severity: Severity
    title: str
    what: str
    evidence: tuple[str, ...]
    cause: str
    advice: str
    page: str  # of the documentation, below docs/
    seconds: float

    @classmethod
    def of(cls, name: str, verdict: Verdict, seconds: float) -> "Finding":
        """What a verdict on the topic of that name means."""
        topic = TOPICS[name]
        bad = verdict.severity in {Severity.FAILED, Severity.WARNING}
        meaning = (topic.cause, topic.advice, topic.page) if bad else ("", "", "")
        return cls(
            name, verdict.severity, topic.title, verdict.what, verdict.evidence, *meaning, round(seconds, 3)
        )


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order of the checks, and what was sent for them."""

    url: str
    version: str
    findings: tuple[Finding, ...]
    sent: Mapping[str, int]  # what was asked, without ids, and how often
    sent_bytes: int  # of bodies and packets
    seconds: float

    def count(self, severity: Severity) -> int:
        """How many findings are of that severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def broken(self) -> bool:
        """Whether a check failed: exit code 1."""
        return self.count(Severity.FAILED) > 0

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return asdict(self) | {
            "sent": dict(self.sent),
            "counts": {str(severity): self.count(severity) for severity in Severity},
        }
