"""The report as text: what is wrong first in full, then a line for each check.

`rich` wraps and colours it where it is installed (the extra `terminal`), and shows which check is under way;
without it the text is the same, plain.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import click

from proxy.doctor.findings import Finding, Report, Severity

STYLES = {
    Severity.FAILED: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.PASSED: "green",
    Severity.SKIPPED: "dim",
}
_BAD = (Severity.FAILED, Severity.WARNING)


class Line(NamedTuple):
    """A paragraph, its style in words of rich, and by how many characters it is moved in."""

    text: str
    style: str = ""
    indent: int = 0


def lines(report: Report, docs: str = "docs/") -> Iterator[Line]:
    """The report, from its first line to its last."""
    yield Line(f"{report.url}, examined in {report.seconds:.1f} s by chainlit-proxy {report.version}", "bold")
    for severity in _BAD:
        for finding in report.findings:
            if finding.severity is severity:
                yield Line("")
                yield from _in_full(finding, docs)
    yield Line("")
    width = max(len(finding.name) for finding in report.findings)
    for finding in report.findings:
        text = f"{finding.severity:<7}  {finding.name:<{width}}  {finding.what}"
        yield Line(text, STYLES[finding.severity])
    yield Line("")
    yield Line(", ".join(f"{report.count(severity)} {severity}" for severity in Severity), "bold")
    yield Line(
        f"sent: {sum(report.sent.values())} requests, {report.sent_bytes:,} bytes of bodies and packets;"
        " its sessions are cleared, nothing is kept"
    )
    for asked, times in report.sent.items():
        yield Line(f"{times:>5}  {asked}", "dim")


def _in_full(finding: Finding, docs: str) -> Iterator[Line]:
    yield Line(f"{finding.severity} {finding.name}: {finding.title}", STYLES[finding.severity])
    yield Line(finding.what, "", 2)
    for text in finding.evidence:
        yield Line(text, "cyan", 4)
    yield Line(f"Likely cause: {finding.cause}", "", 2)
    yield Line(f"What to do: {finding.advice}", "", 2)
    yield Line(f"Read: {docs}{finding.page}", "", 2)


def show(report: Report) -> None:
    """Print it."""
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.padding import Padding  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        for line in lines(report):
            click.echo(" " * line.indent + line.text)
        return
    console = Console(highlight=False)
    for line in lines(report):
        # To a file nothing is wrapped: who reads it there searches it.
        if console.is_terminal:
            console.print(Padding(Text(line.text, style=line.style), (0, 0, 0, line.indent)))
        else:
            click.echo(" " * line.indent + line.text)


@contextmanager
def progress(shown: bool) -> Iterator[Callable[[str], None]]:
    """What tells which check is under way, on stderr of a terminal."""
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
    except ImportError:
        yield lambda _: None
        return
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield lambda _: None
        return
    status: AbstractContextManager[object] = console.status("begins")
    with status:
        yield lambda title: status.update(f"{title} ...")  # type: ignore[attr-defined]
