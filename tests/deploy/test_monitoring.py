"""The ServiceMonitor, by the schema of the Prometheus operator, which Kubernetes' own do not have."""

import copy
import json
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.helm import render
from tests.docs.pages import ROOT
from tests.js.install import HERE, node_path

pytestmark = pytest.mark.system

FILE = ROOT / "deploy/kubernetes/monitoring/servicemonitor.yaml"
SERVICES = ROOT / "deploy/kubernetes/base/proxy-deployment.yaml"


def refusal(document: dict[str, Any]) -> str:
    """Why the operator's schema refuses an object; nothing if it does not."""
    done = subprocess.run(
        [node_path(), str(HERE / "monitoring.mjs")],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr if done.returncode else ""


def test_the_schema_accepts_it() -> None:
    """The component and the chart have the same object, a valid one; with a wrong value it would not be."""
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    (rendered,) = [one for one in render(serviceMonitor={"enabled": True}) if one["kind"] == "ServiceMonitor"]
    assert rendered == document
    assert refusal(document) == ""
    damaged = copy.deepcopy(document)
    damaged["spec"]["endpoints"][0]["interval"] = "soon"
    assert "interval" in refusal(damaged)


def test_it_finds_the_admin_listener() -> None:
    """Its labels select one Service, whose port it names, and whose name of the job is that of the alerts."""
    spec = yaml.safe_load(FILE.read_text(encoding="utf-8"))["spec"]
    found = [
        service
        for service in yaml.safe_load_all(SERVICES.read_text(encoding="utf-8"))
        if service["kind"] == "Service"
        and spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ]
    (service,) = found
    assert spec["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    job = service["metadata"]["labels"][spec["jobLabel"]]
    assert f'job="{job}"' in (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
