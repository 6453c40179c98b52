"""A release of the chart in a real API server, by Helm itself: what people do to one in its life."""

import base64
import gzip
import json
from typing import Any

import pytest

from tests.deploy.api_server import MISSING, ApiServer, assets
from tests.deploy.helm_release import HelmError, Release
from tests.deploy.test_kubernetes import ALL_ON, CRDS, LITTLE

pytestmark = [
    pytest.mark.skipif(assets() is None, reason=MISSING),
    pytest.mark.system,
    pytest.mark.alone,
    pytest.mark.timeout(300),
]
PROXY, CHAT = "deployment/chainlit-proxy", "statefulset/chat"
# Without the definitions of the Prometheus operator nothing of its kinds.
BARE: dict[str, Any] = {
    **ALL_ON,
    **{name: {"enabled": False} for name in ("serviceMonitor", "prometheusRule")},
    "chat": {**ALL_ON["chat"], "metrics": {"enabled": False}},
}
FIXED: dict[str, Any] = {"proxy": {"autoscaling": {"enabled": False}, "replicas": 2}}
SCALED: dict[str, Any] = {
    "proxy": {"discovery": {"enabled": True}},
    "chat": {"autoscaling": {"hpa": {"enabled": True}}},
}


@pytest.fixture
def release(server: ApiServer, namespace: str) -> Release:
    """One that is not installed yet."""
    return Release(server.admin, namespace)


def told(server: ApiServer, namespace: str, what: str) -> Any:
    """An object as the server has it."""
    return json.loads(server.kubectl("get", what, "--namespace", namespace, "-o", "json"))


def replicas(server: ApiServer, namespace: str) -> tuple[int, int]:
    """How many proxies and instances are wanted."""
    proxy, chat = (told(server, namespace, what)["spec"]["replicas"] for what in (PROXY, CHAT))
    return proxy, chat


def scale(server: ApiServer, namespace: str, proxies: int, instances: int) -> None:
    """As an autoscaler does."""
    for what, count in ((PROXY, proxies), (CHAT, instances)):
        server.kubectl("scale", what, "--namespace", namespace, f"--replicas={count}")


def test_a_release_lives_and_leaves_nothing(server: ApiServer, namespace: str, release: Release) -> None:
    """It is installed, turned to everything and to little, rolled back, and removed with what was its own."""
    kinds = "deploy,sts,svc,cm,sa,role,rolebinding,netpol,pdb,hpa"

    def there() -> set[str]:
        return set(server.kubectl("get", kinds, "--namespace", namespace, "-o", "name").split())

    before = there()
    release.install()
    first = there() - before
    assert {"deployment.apps/chainlit-proxy", "statefulset.apps/chat"} < first
    release.upgrade(**(ALL_ON if server.defined >= CRDS else BARE))
    assert "role.rbac.authorization.k8s.io/chainlit-proxy" in there()
    release.upgrade(**LITTLE)
    assert "horizontalpodautoscaler.autoscaling/chainlit-proxy" not in there()
    release.rollback()
    assert "role.rbac.authorization.k8s.io/chainlit-proxy" in there()
    release.upgrade()
    assert there() - before == first
    release.uninstall()
    assert there() <= before


def test_nothing_is_rolled_without_need(server: ApiServer, namespace: str, release: Release) -> None:
    """An upgrade to the same values, or to others than a pod's, makes no new generation of the workloads."""
    release.install()
    before = [told(server, namespace, what)["metadata"]["generation"] for what in (PROXY, CHAT)]
    release.upgrade()
    release.upgrade(proxy={"service": {"port": 8080}, "autoscaling": {"maxReplicas": 9}})
    assert [told(server, namespace, what)["metadata"]["generation"] for what in (PROXY, CHAT)] == before
    release.upgrade(proxy={"config": {"balance": {"bound": 2}}})
    after = [told(server, namespace, what)["metadata"]["generation"] for what in (PROXY, CHAT)]
    assert (after[0] > before[0], after[1]) == (True, before[1])  # the proxies', not the instances'


def made_by_helm_3(server: ApiServer, namespace: str) -> None:
    """Have a release look as one of Helm 3, which compares objects and lets no server know what is its own.

    Helm 4 goes on in this way with such a release.
    """
    (secret,) = told(server, namespace, "secret")["items"]
    kept = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    assert kept["apply_method"] == "ssa"
    del kept["apply_method"]
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(kept).encode()))).decode()
    where = ("--namespace", namespace, "--type=json", "-p")
    change = [{"op": "replace", "path": "/data/release", "value": packed}]
    server.kubectl("patch", "secret", secret["metadata"]["name"], *where, json.dumps(change))
    nobodys = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
    for what in (PROXY, CHAT):
        server.kubectl("patch", what, *where, json.dumps(nobodys))


@pytest.mark.parametrize("helm", [3, 4])
def test_an_upgrade_keeps_what_autoscalers_set(
    server: ApiServer, namespace: str, release: Release, helm: int
) -> None:
    """Also the upgrade that hands the number over, and one after it has changed again."""
    release.install(**FIXED)
    assert replicas(server, namespace) == (2, 3)
    if helm == 3:
        made_by_helm_3(server, namespace)
    release.upgrade(**SCALED)
    assert replicas(server, namespace) == (2, 3)
    for count in (4, 6, 5):
        scale(server, namespace, count, count + 1)
        release.upgrade(**SCALED)
        assert replicas(server, namespace) == (count, count + 1)


def test_a_rollback_keeps_what_autoscalers_set(server: ApiServer, namespace: str, release: Release) -> None:
    """It is for when an upgrade was wrong, and the number may be another one since: no conflict stops it."""
    release.install(**SCALED)
    for count in (4, 6):
        scale(server, namespace, count, count + 1)
        release.upgrade(**SCALED)
    scale(server, namespace, 5, 3)
    release.rollback()
    assert replicas(server, namespace) == (5, 3)


def test_a_number_that_others_have_set_is_a_conflict(
    server: ApiServer, namespace: str, release: Release
) -> None:
    """As the page says of Helm 4: who turns an autoscaler off has to say that the chart's number is meant."""
    release.install(**FIXED)
    release.upgrade(**SCALED)
    scale(server, namespace, 4, 5)
    with pytest.raises(HelmError, match=r"conflict .*\.spec\.replicas"):
        release.upgrade(**FIXED)
