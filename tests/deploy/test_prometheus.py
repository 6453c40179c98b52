"""The alert rules and the dashboard's queries in a real Prometheus that scrapes a real proxy."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.scrape import busy
from proxy.metric_families import PREFIX
from proxy.scrape import Scrape
from tests.deploy.prometheus import MISSING, find
from tests.deploy.test_files import ALERT_TESTS, ALERTS, queries, rules
from tests.support.instances import http_status
from tests.support.processes import Process, free_port
from tests.support.proxy_process import ProxyProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def programs() -> tuple[str, str]:
    """The paths of promtool and Prometheus."""
    found = find()
    if found is None:
        pytest.fail(MISSING, pytrace=False)
    return found


def test_promtool_accepts_the_rules(programs: tuple[str, str]) -> None:
    """They are valid, and fire when they should and not before."""
    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(ALERT_TESTS)]):
        done = subprocess.run(
            [programs[0], *command], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_metrics(programs: tuple[str, str]) -> None:
    """What is scraped is valid, and named as Prometheus has it."""
    text, _ = Scrape(busy().collector.collect)("")
    done = subprocess.run(
        [programs[0], "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    complaints = [line for line in done.stderr.decode().splitlines() if PREFIX in line]
    assert not complaints
    assert done.returncode in {0, 3}, (
        done.stderr
    )  # 3: something to say on names, those of the process among them


class Prometheus(Process):
    """A Prometheus with our rules that scrapes one proxy every second, as long as a file names it.

    Its alerts wait for a second where ours wait for minutes: how long is for promtool to try.
    """

    def __init__(self, program: str, admin: str, folder: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self.targets = folder / "targets.json"
        self.name_targets([admin.partition("//")[2]])
        alerts = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
        for group in alerts["groups"]:
            for rule in group["rules"]:
                rule["for"] = "1s"
        rule_file = folder / "alerts.yml"
        rule_file.write_text(yaml.safe_dump(alerts))
        found = {"files": [str(self.targets)], "refresh_interval": "1s"}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rule_file)],
            "scrape_configs": [{"job_name": "chainlit-proxy", "file_sd_configs": [found]}],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
        super().__init__(
            "prometheus", [*command, f"--web.listen-address={address}"], folder / "prometheus.log"
        )

    def name_targets(self, targets: list[str]) -> None:
        """Scrape these and no others."""
        new = self.targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": targets}]))
        new.rename(self.targets)

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer; None while there is none."""
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=5
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 503:  # which it is while it starts
                    raise AssertionError(error.read().decode()) from None
            return None
        except OSError:
            return None

    def value(self, query: str) -> float | None:
        """The first value of a query."""
        data = self.ask("query", query=query)
        return float(data["result"][0]["value"][1]) if data and data["result"] else None

    def firing(self) -> set[str]:
        """The alerts that fire."""
        data = self.ask("query", query='ALERTS{alertstate="firing"}')
        return {one["metric"]["alertname"].removeprefix("Chainlit") for one in data["result"]}

    def wait_firing(self, *names: str) -> None:
        """Wait until these fire and no others."""
        wait_until(lambda: self.firing() == set(names), 30, lambda: f"{names}, but {self.firing()}")


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of an app that blocks its event loop: connections are accepted, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def proxy(tmp_path: Path) -> ProxyProcess:
    """A proxy that is not started yet, whose only backend refuses connections."""
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    found = tmp_path / "backends.json"
    found.write_text(json.dumps([{"name": "a", "url": f"http://127.0.0.1:{free_port()}"}]))
    config = {
        "listen": listen,
        "admin": {"listen": admin},
        "discovery": {"file": str(found)},
        "affinity": {"hold": 0},
        "health": {"interval": 0.2, "timeout": 0.2, "evict_after": 600},
    }
    return ProxyProcess(config, tmp_path)


@pytest.fixture
def prometheus(programs: tuple[str, str], proxy: ProxyProcess, tmp_path: Path) -> Iterator[Prometheus]:
    """It scrapes the proxy."""
    server = Prometheus(programs[1], proxy.admin, tmp_path)
    proxy.launch()
    server.launch()
    try:
        wait_until(lambda: server.value('up{job="chainlit-proxy"}') == 1, 30, server.tail)
        yield server
    finally:
        server.stop(signal.SIGTERM, 20)
        if proxy.running:
            proxy.stop(signal.SIGTERM, 20)


def test_prometheus_judges_all_rules_and_panels(prometheus: Prometheus) -> None:
    """It reads the metrics, evaluates every rule and answers every panel."""
    wait_until(lambda: "BackendDown" in prometheus.firing(), 30, prometheus.tail)
    loaded = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in loaded} == {rule["alert"] for rule in rules()}
    assert {rule["health"] for rule in loaded} == {"ok"}
    for query in queries():
        assert prometheus.ask("query", query=query)["resultType"] == "vector", query


def refused(proxy: ProxyProcess, times: int) -> None:
    """Ask so often; nobody can take it."""
    for _ in range(times):
        assert http_status(proxy.url) == 503


def test_alerts_fire_for_what_has_happened_and_for_nothing_else(
    prometheus: Prometheus, proxy: ProxyProcess, silent: int
) -> None:
    """Each fault in turn: dead and blocked backends, a burst of errors, a bad list, no proxy, no target."""
    backends = Path(proxy.config["discovery"]["file"])
    nobody = ["BackendDown", "NoBackend"]
    prometheus.wait_firing(*nobody)
    refused(proxy, 1)
    errors = 'sum(chainlit_proxy_requests_total{code="5xx", backend=""})'
    wait_until(lambda: prometheus.value(errors) == 1, 30, prometheus.tail)
    prometheus.wait_firing(*nobody)  # one error is none
    refused(proxy, 60)
    prometheus.wait_firing(*nobody, "ProxyRefuses")
    proxy.post("/api/backends/a/maintenance")
    prometheus.wait_firing("NoBackend", "ProxyRefuses")  # taken out: nobody wonders that it is down
    backends.write_text(json.dumps([{"name": "b", "url": f"http://127.0.0.1:{silent}"}]))
    prometheus.wait_firing("BackendDegraded", "ProbesSlow", "NoBackend", "ProxyRefuses")
    proxy.post("/api/backends/b/drain")
    prometheus.wait_firing("DrainStands", "NoBackend", "ProxyRefuses")
    backends.write_text("no list")
    prometheus.wait_firing("DiscoveryStale", "DrainStands", "NoBackend", "ProxyRefuses")
    assert proxy.stop(signal.SIGTERM, 20) == 0
    wait_until(lambda: prometheus.value('up{job="chainlit-proxy"}') == 0, 30, prometheus.tail)
    wait_until(lambda: "ProxyUnreachable" in prometheus.firing(), 30, lambda: str(prometheus.firing()))
    prometheus.name_targets([])
    wait_until(lambda: "ProxiesGone" in prometheus.firing(), 30, lambda: str(prometheus.firing()))
    assert "ProxyUnreachable" not in prometheus.firing()
