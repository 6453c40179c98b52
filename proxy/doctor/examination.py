"""All checks in their order, each after those without which it has nothing to say.

A check that needs another one is skipped, with the reason, unless that one passed: of one fault there is one
finding where that can be, not twenty.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

import proxy
from proxy.doctor import pages, sessions, waits
from proxy.doctor.browser import SHOWN, Settings, Site, printable
from proxy.doctor.engine import Transport
from proxy.doctor.findings import Finding, Report, Severity, Verdict, failed, skipped
from proxy.doctor.sessions import Checked
from proxy.doctor.topics import TOPICS


class Step(NamedTuple):
    """A check, and the names of those that have to have passed before."""

    check: Checked
    needs: tuple[str, ...] = ("page", "root_path", "login", "secret")


_UP = (*Step._field_defaults["needs"], "upgrade")
_COOKIELESS = "_without_cookies"

STEPS: Final[dict[str, Step]] = {
    "tls": Step(pages.tls, ()),
    "page": Step(pages.page, ()),
    "root_path": Step(pages.root_path, ("page",)),
    "versions": Step(pages.versions, ("page", "root_path")),
    "login": Step(pages.login, ("page", "root_path")),
    "secret": Step(pages.secret, ("page", "root_path", "login")),
    "oauth_redirect": Step(pages.oauth_redirect, ("page", "root_path")),
    "origin": Step(pages.origin, ("page", "root_path")),
    "session_cookie": Step(pages.session_cookie, ("page", "root_path")),
    "upgrade": Step(sessions.upgrade),
    "polling": Step(sessions.connects(Transport.POLLING)),
    "polling_then_websocket": Step(sessions.connects(Transport.BOTH), _UP),
    "websocket": Step(sessions.connects(Transport.WEBSOCKET), _UP),
    "upload": Step(sessions.reaches("upload")),
    "element": Step(sessions.reaches("element")),
    "action": Step(sessions.reaches("action")),
    "reconnect": Step(sessions.comes_back()),
    "tabs": Step(sessions.tabs, (*_UP[:-1], "element")),
    "many_sessions": Step(sessions.many_sessions, (*_UP[:-1], "polling", "element")),
    f"polling{_COOKIELESS}": Step(
        sessions.connects(Transport.POLLING, cookies=False), (*_UP[:-1], "polling")
    ),
    f"polling_then_websocket{_COOKIELESS}": Step(
        sessions.connects(Transport.BOTH, cookies=False), (*_UP, "polling_then_websocket")
    ),
    f"websocket{_COOKIELESS}": Step(
        sessions.connects(Transport.WEBSOCKET, cookies=False), (*_UP, "websocket")
    ),
    f"requests{_COOKIELESS}": Step(sessions.requests_without_cookies, (*_UP[:-1], "element")),
    f"reconnect{_COOKIELESS}": Step(sessions.comes_back(cookies=False), (*_UP[:-1], "reconnect")),
    "buffering": Step(waits.buffering),
    "answer": Step(waits.answer),
    "idle": Step(waits.idle),
    "large_upload": Step(waits.large_upload, (*_UP[:-1], "upload")),
    "large_headers": Step(waits.large_headers, ("page", "root_path")),
    "large_message": Step(waits.large_message),
}


def may_go_on(site: Site, finding: Finding) -> bool:
    """Whether more may be sent: nothing that was given goes to a site whose certificate is not its own."""
    return finding.name != "tls" or finding.severity is not Severity.FAILED or not site.has_credentials


async def examine(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Runs all checks; `tell` is given the title of each before it begins. Raises nothing."""
    site = Site(settings)
    found: dict[str, Finding] = {}
    begun = time.monotonic()
    stopped = ""
    for name, step in STEPS.items():
        started = time.monotonic()
        lacks = [need for need in step.needs if found[need].severity not in _GOOD[need == "secret"]]
        if stopped or lacks:
            verdict = skipped(stopped or f"needs {lacks[0]}")
        else:
            tell(TOPICS[name].title)
            verdict = await _run(step, site)
        found[name] = finding = Finding.of(name, _masked(site, verdict), time.monotonic() - started)
        if not may_go_on(site, finding):
            stopped = "the certificate is not to be trusted with what was given"
    return Report(
        str(settings.url),
        proxy.__version__,
        tuple(found.values()),
        dict(sorted(site.sent.items())),
        site.sent_bytes,
        round(time.monotonic() - begun, 3),
    )


_GOOD = (
    {Severity.PASSED},
    {Severity.PASSED, Severity.SKIPPED},
)  # what lets others go on; without a login there is no secret


async def _run(step: Step, site: Site) -> Verdict:
    """A check that stumbles over an answer that nobody thought of is a finding, not the end of the others."""
    try:
        return await step.check(site)
    except Exception as error:  # the border: what stands there may answer anything
        told = f"{type(error).__name__}: {error}"[:SHOWN]
        return failed(f"the check met what it does not understand: {told}")


def _masked(site: Site, verdict: Verdict) -> Verdict:
    return replace(
        verdict,
        what=printable(site.mask(verdict.what)),
        evidence=tuple(printable(site.mask(text)) for text in verdict.evidence),
    )
