"""What the Prometheus operator and Grafana are given: valid by the operator's schemas, and of one mind."""

import copy
import json
from functools import cache
from typing import Any

import pytest
import yaml

from tests.deploy.crds import refusal
from tests.deploy.helm import CHART, render
from tests.deploy.test_files import ALERTS, DASHBOARD
from tests.docs.pages import ROOT

pytestmark = pytest.mark.system

MONITORING = ROOT / "deploy/kubernetes/monitoring"
SERVICES = ROOT / "deploy/kubernetes/base/proxy-deployment.yaml"
LABELS = {"namespace": "observed", "labels": {"release": "stack"}}


def component(name: str) -> dict[str, Any]:
    """An object of the component for kustomize."""
    return dict(yaml.safe_load((MONITORING / f"{name}.yaml").read_text(encoding="utf-8")))


@cache
def charts() -> dict[str, dict[str, Any]]:
    """The chart's objects by kind, those of config maps by name."""
    objects = render(
        chat={"metrics": {"enabled": True}},
        serviceMonitor={"enabled": True, "interval": "30s", **LABELS},
        prometheusRule={"enabled": True, **LABELS},
        dashboard={"enabled": True, "namespace": "observed"},
    )
    return {one["kind"]: one for one in objects} | {
        one["metadata"]["name"]: one for one in objects if one["kind"] == "ConfigMap"
    }


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor", "PrometheusRule"])
def test_the_schema_accepts_it(kind: str) -> None:
    """What the chart and the component have is valid."""
    assert refusal(charts()[kind]) == ""
    if kind != "PodMonitor":
        assert refusal(component(kind.lower())) == ""


def test_the_schema_would_refuse_a_mistake() -> None:
    """A wrong value is seen."""
    damaged = copy.deepcopy(component("servicemonitor"))
    damaged["spec"]["endpoints"][0]["interval"] = "soon"
    assert "interval" in refusal(damaged)


def test_the_common_stack_finds_them() -> None:
    """They bear the labels that an operator is told to look for, and may live in its namespace."""
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        metadata = charts()[kind]["metadata"]
        assert (metadata["namespace"], metadata["labels"]["release"]) == ("observed", "stack")
    for kind in ("ServiceMonitor", "PodMonitor"):
        assert charts()[kind]["spec"]["namespaceSelector"] == {"matchNames": ["chat"]}
    dashboard = charts()["chainlit-proxy-dashboard"]["metadata"]
    assert (dashboard["namespace"], dashboard["labels"]["grafana_dashboard"]) == ("observed", "1")
    for name in ("servicemonitor", "prometheusrule"):
        assert component(name)["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_alerts_and_dashboard_are_one_file_each() -> None:
    """Those of the chart and the component are copies of what everybody else is given; `cp` mends it."""
    for copied in (CHART / "files/alerts.yml", CHART / "files/dashboard.json", MONITORING / "dashboard.json"):
        source = ALERTS if copied.suffix == ".yml" else DASHBOARD
        assert copied.read_bytes() == source.read_bytes(), f"cp {source} {copied}"
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    assert charts()["PrometheusRule"]["spec"] == rules
    assert component("prometheusrule")["spec"] == rules
    (text,) = charts()["chainlit-proxy-dashboard"]["data"].values()
    assert json.loads(text) == json.loads(DASHBOARD.read_text(encoding="utf-8"))


def test_it_finds_the_admin_listener() -> None:
    """Its labels select one Service, whose port it names, and whose name of the job is that of the alerts."""
    spec = component("servicemonitor")["spec"]
    rendered = copy.deepcopy(charts()["ServiceMonitor"]["spec"])
    assert rendered.pop("namespaceSelector")
    rendered["endpoints"][0]["interval"] = "15s"
    assert rendered == spec
    found = [
        service
        for service in yaml.safe_load_all(SERVICES.read_text(encoding="utf-8"))
        if service["kind"] == "Service"
        and spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ]
    (service,) = found
    assert spec["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    job = service["metadata"]["labels"][spec["jobLabel"]]
    assert f'job="{job}"' in ALERTS.read_text(encoding="utf-8")


def test_prometheus_may_reach_what_it_scrapes() -> None:
    """The instances' metrics have a port of their pods, and the policy lets Prometheus in."""
    objects = charts()
    (container,) = objects["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    port = objects["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["port"]
    assert {"name": port, "containerPort": 9100} in container["ports"]
    policies = [
        one
        for one in render(chat={"metrics": {"enabled": True}})
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "chat"
    ]
    rules = [
        rule for rule in policies[0]["spec"]["ingress"] if {"port": port, "protocol": "TCP"} in rule["ports"]
    ]
    assert [list(peer) for rule in rules for peer in rule["from"]] == [["namespaceSelector"]]
