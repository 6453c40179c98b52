"""Objects of kinds that others define, before a real API server: for monitoring, scaling, and in front."""

import copy
from functools import cache
from typing import Any

import pytest
import yaml

from tests.deploy.api_server import MISSING, ApiServer, RefusedError, assets
from tests.deploy.helm import chosen, render_all
from tests.deploy.test_autoscaling import KEDA, both
from tests.deploy.test_kubernetes import ALL_ON, FOLDER
from tests.docs.pages import found

pytestmark = [
    pytest.mark.skipif(assets() is None, reason=MISSING),
    pytest.mark.system,
    pytest.mark.alone,
    pytest.mark.timeout(300),
]
KINDS = ("BackendConfig", "HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor")
# Kubernetes' own, and those of kustomize's files.
OWN = {"", "apps", "autoscaling", "policy"}
OWN |= {f"{name}.k8s.io" for name in ("kustomize.config", "networking", "rbac.authorization")}


@cache
def others() -> list[dict[str, Any]]:
    """What the chart renders, the folders have and the pages show of kinds that others define."""
    files = [file for file in FOLDER.glob("*/*.yaml") if file.parent.name != "chart"]
    texts = [file.read_text(encoding="utf-8") for file in files]
    texts += [block.text for block in found("yaml") if "apiVersion:" in block.text]
    documents = [one for text in texts for one in yaml.safe_load_all(text) if "apiVersion" in one]
    documents += [*render_all([chosen(ALL_ON)])[0], both()["keda"][KEDA]]
    return [one for one in documents if one["apiVersion"].rpartition("/")[0] not in OWN]


def objects(server: ApiServer, kind: str) -> list[dict[str, Any]]:
    """Those of one kind, if its definition was named."""
    if kind not in server.defined:
        pytest.skip(f"CRDS names no definition of {kind}")
    return copy.deepcopy([one for one in others() if one["kind"] == kind])


def test_no_kind_is_forgotten() -> None:
    """Each is among those that are tried here."""
    assert {one["kind"] for one in others()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_taken(server: ApiServer, namespace: str, kind: str) -> None:
    """By its project's own definition, with no field unknown; to apply it again changes nothing."""
    for one in objects(server, kind):
        assert server.apply([one], namespace) == server.apply([one], namespace)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_refused(server: ApiServer, namespace: str, kind: str) -> None:
    """A field that is none: so what is taken has no such field."""
    for one in objects(server, kind):
        with pytest.raises(RefusedError, match=r"\.spec\.mistake"):
            server.apply([{**one, "spec": {**one["spec"], "mistake": 1}}], namespace)
