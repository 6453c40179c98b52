"""What `deploy/` asks for is what the proxy has."""

import json
import re
from typing import Any

import pytest
import yaml

from proxy.config import Config
from proxy.exposition import Kind
from proxy.parts import Parts
from proxy.sessions.metrics import Counts
from tests.docs.pages import ROOT

DASHBOARD = ROOT / "deploy/grafana/dashboard.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
ALERT_TESTS = ROOT / "deploy/prometheus/alerts_test.yml"


def rules() -> list[dict[str, Any]]:
    """All alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """The queries of the dashboard as Grafana would ask them."""
    found = [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]
    ]
    for name, value in {"__rate_interval": "1m", "namespace": ".*", "job": ".*", "instance": ".*"}.items():
        found = [query.replace(f"${name}", value) for query in found]
    return found


def names() -> set[str]:
    """What can be asked of our metrics, those of the instances among them."""
    found = {family.name for family in Counts().collect()}
    for family in Parts(Config()).collector.collect():
        suffixes = ["_bucket", "_count", "_sum"] if family.kind is Kind.HISTOGRAM else [""]
        found.update(family.sample + suffix for suffix in suffixes)
    return found


@pytest.mark.parametrize("query", [rule["expr"] for rule in rules()] + queries())
def test_a_query_asks_for_metrics_that_exist(query: str) -> None:
    """Every name of ours in a rule or a panel is a metric."""
    asked = set(re.findall(r"\bchainlit_proxy_\w+", query))
    assert asked <= names()
    assert asked or "up{" in query


def test_every_alert_is_tested() -> None:
    """The file for promtool has each alert fire once at least."""
    fired = {
        case["alertname"]
        for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in rules()}


def test_sites_are_told_apart() -> None:
    """Every panel goes by the namespace, job and proxy that were chosen, and sums each job alone.

    Outside of Kubernetes there may be no namespace, and the job is what tells sites apart.
    """
    asked = [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]
    ]
    for query in asked:
        selectors = re.findall(r"chainlit_proxy_\w+\{([^}]*)\}", query)
        assert len(selectors) == len(re.findall(r"\bchainlit_proxy_\w+", query)), query
        for selector in selectors:
            for name in ("namespace", "job", "instance"):
                assert f'{name}=~"${name}"' in selector, query
        assert len(re.findall(r"\bby \(namespace, job\b", query)) == len(re.findall(r"\bby\b", query)) > 0


def test_panels_do_not_overlap() -> None:
    """Each panel has its own place and number."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
