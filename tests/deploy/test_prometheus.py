"""The alert rules and the dashboard's queries in a real Prometheus that scrapes a real proxy."""

import json
import signal
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
from proxy.metrics import PREFIX
from proxy.scrape import Scrape
from tests.deploy.prometheus import MISSING, find
from tests.deploy.test_files import ALERT_TESTS, ALERTS, queries, rules
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
    """A Prometheus with our rules that scrapes one proxy every second."""

    def __init__(self, program: str, admin: str, folder: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": "chainlit-proxy", "static_configs": [{"targets": [admin.partition("//")[2]]}]}
            ],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
        super().__init__(
            "prometheus", [*command, f"--web.listen-address={address}"], folder / "prometheus.log"
        )

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


@pytest.fixture
def prometheus(programs: tuple[str, str], tmp_path: Path) -> Iterator[Prometheus]:
    """It scrapes a proxy whose only backend refuses connections."""
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    backend = {"name": "a", "url": f"http://127.0.0.1:{free_port()}"}
    proxy = ProxyProcess({"listen": listen, "admin": {"listen": admin}, "backends": [backend]}, tmp_path)
    server = Prometheus(programs[1], proxy.admin, tmp_path)
    proxy.launch()
    server.launch()
    try:
        yield server
    finally:
        server.stop(signal.SIGTERM, 20)
        proxy.stop(signal.SIGTERM, 20)


def test_prometheus_scrapes_and_judges(prometheus: Prometheus) -> None:
    """It reads the metrics and evaluates every rule, holds the backend for down, and answers every panel."""
    wait_until(lambda: prometheus.value('up{job="chainlit-proxy"}') == 1, 30, prometheus.tail)
    down = 'ALERTS{alertname="ChainlitBackendDown", backend="a"}'
    wait_until(lambda: prometheus.value(down) == 1, 20, prometheus.tail)
    loaded = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in loaded} == {rule["alert"] for rule in rules()}
    assert {rule["health"] for rule in loaded} == {"ok"}
    for query in queries():
        assert prometheus.ask("query", query=query)["resultType"] == "vector", query
