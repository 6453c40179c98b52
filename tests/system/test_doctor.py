"""`doctor` says of each deployment what is wrong with it, and nothing else: the table of docs/doctor.md."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from proxy.doctor.browser import Settings
from proxy.doctor.examination import examine
from proxy.doctor.findings import Report, Severity
from tests.docs.pages import ROOT, table
from tests.support.fronts import LARGE, UPGRADE, Front, collecting, haproxy, nginx
from tests.support.instances import ChainlitInstance, Fleet, http_status
from tests.support.proxy_process import ProxyProcess, config_for
from tests.support.size import IN_FULL
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

PAGE = ROOT / "docs/doctor.md"
EXPECTED = {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in table(PAGE, "What it finds")}
USER = {"x-user": "somebody"}
SHORT = 10.0  # seconds of silence
Instances = list[ChainlitInstance]
Make = Callable[[Instances, Path], Front | ProxyProcess | ChainlitInstance]


@pytest.fixture(scope="module")
def with_login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two instances of an app with a login, and with different secrets."""
    fleet = Fleet(tmp_path_factory.mktemp("login"), 2, env={"LOGIN": "1"})
    for name, instance in fleet.instances.items():
        instance.env["CHAINLIT_AUTH_SECRET"] = f"{name}-" * 20
    with fleet:
        yield fleet


def this_proxy(instances: Instances, folder: Path) -> ProxyProcess:
    """The proxy before them."""
    return ProxyProcess(config_for(instances), folder)


def below_chat(instances: Instances, folder: Path) -> Front:
    """An nginx that has the app at /chat, and tells it nothing of that."""
    front = nginx(instances[:1], folder, more=f"{UPGRADE} rewrite ^/chat/?(.*)$ /$1 break;")
    front.path = "/chat"
    return front


SHOWN_BY = {"large": "large_message", "say": "answer", "idle": "idle"}  # what an option turns on
LIMITS: dict[str, Any] = {"large": True}
FRONTS: dict[str, tuple[Make, dict[str, Any]]] = {
    "one instance, nothing in front": (lambda many, _: many[0], LIMITS),
    "this proxy, three instances": (this_proxy, LIMITS),
    "nginx, round robin over two instances": (lambda many, folder: nginx(many[:2], folder), {}),
    "nginx, `ip_hash`": (lambda many, folder: nginx(many, folder, "ip_hash;"), {}),
    "nginx, hash of Chainlit's cookie": (
        lambda many, folder: nginx(many, folder, "hash $session consistent;"),
        {},
    ),
    "HAProxy with its own cookie": (haproxy, {}),
    "nginx, `proxy_buffering on`": (
        lambda many, folder: nginx(many[:1], folder, more=f"{UPGRADE}{LARGE} proxy_buffering on;"),
        {"say": "nonce stream 20 0.02"},
    ),
    "something that collects what a websocket brings": (
        lambda many, folder: collecting(many[0], folder),
        {},
    ),
    "nginx, an idle limit of 2 seconds": (
        lambda many, folder: nginx(many[:1], folder, more=f"{UPGRADE} proxy_read_timeout 2s;"),
        {"idle": 4.0},
    ),
    "nginx, an idle limit of 30 seconds, silence of 40": (
        lambda many, folder: nginx(many[:1], folder, more=f"{UPGRADE} proxy_read_timeout 30s;"),
        {"idle": 40.0},
    ),
    "nginx that strips `Upgrade`": (lambda many, folder: nginx(many[:1], folder, more=LARGE), {}),
    "nginx with its own limits on bodies and headers": (
        lambda many, folder: nginx(many[:1], folder, more=UPGRADE),
        LIMITS,
    ),
    "nginx that takes a root path off": (below_chat, {}),
}
WITH_LOGIN: dict[str, tuple[Make, dict[str, Any]]] = {
    "an app with a login, and one that is right": (lambda many, _: many[0], {"headers": USER}),
    "an app with a login, and none given": (lambda many, _: many[0], {}),
    "two instances with different secrets, round robin": (nginx, {"headers": USER}),
    "two instances with different secrets, this proxy": (this_proxy, {"headers": USER}),
}


def examined(make: Make, instances: Instances, folder: Path, options: dict[str, Any]) -> Report:
    """The report on what `make` makes."""
    front = make(instances, folder)
    try:
        if not isinstance(front, ChainlitInstance):
            front.start()
        if isinstance(front, ProxyProcess):
            front.wait_health({one.name: "healthy" for one in instances})
        address = URL(front.url + getattr(front, "path", "")) if isinstance(front, Front) else URL(front.url)
        return asyncio.run(examine(Settings(address, **options)))
    finally:
        if not isinstance(front, ChainlitInstance):
            print(front.tail(200))
            front.kill9()
            assert http_status(f"{front.url}/health") == 0, "it left something that answers"


def bad(report: Report) -> dict[str, tuple[str, ...]]:
    """What it says is wrong."""
    return {
        finding.name: (finding.severity, finding.what, *finding.evidence)
        for finding in report.findings
        if finding.severity in {Severity.FAILED, Severity.WARNING}
    }


def skipped(report: Report) -> set[str]:
    """What was not tried."""
    return {finding.name for finding in report.findings if finding.severity is Severity.SKIPPED}


@pytest.mark.parametrize("name", FRONTS)
def test_it_finds_what_is_wrong(name: str, fleet: Fleet, tmp_path: Path) -> None:
    """Each deployment yields exactly the findings that the page tells."""
    make, options = FRONTS[name]
    if options.get("idle", 0) > SHORT and not IN_FULL:
        pytest.skip("it takes long: FULL=1")
    report = examined(make, list(fleet.instances.values()), tmp_path, options)
    found = bad(report)
    assert found.keys() == EXPECTED[name], found
    assert not {SHOWN_BY[option] for option in options} & skipped(report)
    assert all("without_cookies" in each or found[each][0] is Severity.FAILED for each in found)


@pytest.mark.parametrize("name", WITH_LOGIN)
def test_it_finds_what_is_wrong_behind_a_login(name: str, with_login: Fleet, tmp_path: Path) -> None:
    """The same of an app with a login; what was given is nowhere in the report."""
    make, options = WITH_LOGIN[name]
    report = examined(make, list(with_login.instances.values()), tmp_path, options)
    assert bad(report).keys() == EXPECTED[name], bad(report)
    assert USER["x-user"] not in json.dumps(report.as_json())


def test_the_page_tells_of_all() -> None:
    """Every deployment of the table is tried here, and every one that is tried is in the table."""
    assert EXPECTED.keys() == FRONTS.keys() | WITH_LOGIN.keys()


def files_of(fleet: Fleet) -> set[Path]:
    """The uploads that the first instance keeps; sessions that lost their way have left some there."""
    return set((fleet.folder / "root-a/.files").glob("*/*"))


def test_nothing_is_left_behind(fleet: Fleet) -> None:
    """No chat is started, nothing is said, and every session is cleared with its file."""
    before, files_before = len(fleet.journal.entries()), files_of(fleet)
    front = fleet["a"]
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "doctor", front.url, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["counts"]["failed"] == report["counts"]["warning"] == 0
    assert report["counts"]["passed"] > 20
    kinds = {entry.kind for entry in fleet.journal.entries()[before:]}
    assert kinds <= {"end"}
    wait_until(lambda: files_of(fleet) <= files_before, 10, lambda: f"no files but {files_before}")
