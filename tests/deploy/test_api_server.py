"""All of deploy/kubernetes before a real API server, and discovery with the rights that it gives there."""

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import Config, loads
from tests.deploy.api_server import MISSING, ApiServer, RefusedError, assets
from tests.deploy.helm import chosen, render_all
from tests.deploy.test_kubernetes import ALL_ON, CHAT, CRDS, FOLDER, PROXY, Objects, base, charts
from tests.docs.pages import ROOT, found
from tests.support.finding import Found, follow

pytestmark = [
    pytest.mark.skipif(assets() is None, reason=MISSING),
    pytest.mark.system,
    pytest.mark.alone,
    pytest.mark.timeout(300),
]
ACCOUNT = "chainlit-proxy"
# The class of the pods of ALL_ON.
HIGH = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "high"},
    "value": 1000,
}


def known(server: ApiServer, objects: Objects) -> list[dict[str, Any]]:
    """Those whose kinds are Kubernetes' own, or were defined."""
    return [one for one in objects.values() if one["kind"] not in CRDS or one["kind"] in server.defined]


@pytest.mark.parametrize("whose", ["base", *charts()])
def test_every_object_is_taken(server: ApiServer, namespace: str, whose: str) -> None:
    """No field is unknown or told twice, and to apply it again changes nothing."""
    documents = known(server, base() if whose == "base" else charts()[whose])
    assert len(documents) > 8
    assert server.apply(documents, namespace) == server.apply(documents, namespace)


def test_a_mistake_is_refused(server: ApiServer, namespace: str) -> None:
    """A variable that is told twice, and a field that is none: so what is taken has neither."""
    twice, unknown = copy.deepcopy(base()[CHAT]), copy.deepcopy(base()[CHAT])
    pod = twice["spec"]["template"]["spec"]
    pod["containers"][0]["env"].append({"name": "FORWARDED_ALLOW_IPS", "value": "b"})
    unknown["spec"]["template"]["spec"]["enableServiceLink"] = False
    for chat, told in ((twice, "duplicate"), (unknown, "enableServiceLink")):
        with pytest.raises(RefusedError, match=told):
            server.apply([chat], namespace)


def test_a_release_is_changed(server: ApiServer, namespace: str) -> None:
    """From the defaults to everything on, to little, and back: nothing that cannot be changed is."""
    for whose in ("default", "all", "little", "default"):
        server.apply(known(server, charts()[whose]), namespace)


@pytest.mark.parametrize("whose", ["base", "default"])
def test_another_manager_takes_it_over(server: ApiServer, namespace: str, whose: str) -> None:
    """What kubectl applied may be applied by Argo CD or a pipeline: nobody holds another value of a field.

    One that is taken as a whole, and that the server fills in, would be in conflict with itself.
    """
    documents = known(server, base() if whose == "base" else charts()[whose])
    given = yaml.safe_dump_all(documents)
    server.kubectl("apply", "--namespace", namespace, "-f", "-", given=given)
    server.apply(documents, namespace, manager="pipeline")


@pytest.mark.parametrize("whose", ["base", *charts()])
def test_the_pods_are_as_restricted_as_can_be(server: ApiServer, namespace: str, whose: str) -> None:
    """A namespace that enforces the strictest Pod Security Standard takes them, and no looser ones."""
    server.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    server.kubectl("apply", "-f", "-", given=yaml.safe_dump(HIGH))
    for key in (PROXY, CHAT):
        template = (base() if whose == "base" else charts()[whose])[key]["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {**template["metadata"], "name": key[1]}
        server.apply([pod], namespace)
        (container,) = template["spec"]["containers"]
        loose = {**container, "securityContext": {**container["securityContext"], "capabilities": {}}}
        pod["metadata"]["name"] = "loose"
        with pytest.raises(RefusedError, match="unrestricted capabilities"):
            server.apply([{**pod, "spec": {**template["spec"], "containers": [loose]}}], namespace)


def test_the_overlay_of_the_page_is_taken(server: ApiServer, tmp_path: Path) -> None:
    """The folder that the page has its reader write, applied as the page says, with discovery in it."""
    page = ROOT / "docs/deployment/kubernetes.md"
    (text,) = (one.text for one in found("yaml") if one.page == page and "kind: Kustomization" in one.text)
    overlay = yaml.safe_load(text)
    wanted = overlay["components"]
    assert wanted == ["deploy/kubernetes/monitoring"]
    if not server.defined.issuperset({"ServiceMonitor", "PrometheusRule"}):
        wanted = []
    for components in (wanted, [*wanted, "deploy/kubernetes/discovery"]):
        overlay["components"] = components
        folder = tmp_path / str(len(components))
        shutil.copytree(FOLDER, folder / "deploy/kubernetes")
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        (folder / "proxy.yaml").write_text((FOLDER / "base/proxy.yaml").read_text())
        if components == wanted:
            server.kubectl("create", "namespace", overlay["namespace"])
        told = server.kubectl("apply", "--validate=strict", "-k", str(folder))
        assert ("role.rbac.authorization.k8s.io/chainlit-proxy created" in told) is (components != wanted)
        there = server.versions("get", "-k", str(folder))
        assert server.versions("apply", "--validate=strict", "-k", str(folder)) == there  # nothing is rolled
        assert server.kubectl("diff", "-k", str(folder)) == ""


def slices(*pods: str, ready: bool = True) -> dict[str, Any]:
    """A slice of the Service `chat`, as its controller would keep it."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "chat-1", "labels": {"kubernetes.io/service-name": "chat"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [f"10.244.0.{10 + int(pod[-1])}"],
                "conditions": {"ready": ready, "serving": ready, "terminating": not ready},
                "targetRef": {"kind": "Pod", "name": pod},
            }
            for pod in pods
        ],
    }


@pytest.fixture
def account(server: ApiServer, namespace: str) -> Path:
    """What leads there with the rights that the chart gives to the pods of the proxy, and no others."""
    (objects,) = render_all([chosen(ALL_ON)])
    wanted = [one for one in objects if one["kind"] in {"Role", "RoleBinding", "ServiceAccount"}]
    assert len(wanted) == 3
    server.apply(wanted, namespace)
    token = server.kubectl("create", "token", ACCOUNT, "--namespace", namespace).strip()
    return server.kubeconfig(namespace, token)


def configured(namespace: str, kubeconfig: Path) -> Config:
    """A configuration that finds the pods of `chat`."""
    asked = f"{{service: chat, namespace: {namespace}, kubeconfig: '{kubeconfig}'}}"
    return loads(f"discovery: {{kubernetes: {asked}}}\n", need_backends=True)


def test_discovery_lives_through_what_servers_do(server: ApiServer, namespace: str, account: Path) -> None:
    """Pods come and go. That the server starts anew, and forgets changes meanwhile, drains nobody."""

    async def scenario(found: Found) -> None:
        server.apply([slices("chat-0", "chat-1")], namespace)
        await found.until("chat-0", "chat-1")
        found.answer("chat-0")
        assert found.backend("chat-0").url == "http://10.244.0.10:8000"
        server.stop()
        await found.until_failed("kubernetes")
        assert found.names == ["chat-0", "chat-1"]
        server.start()
        server.apply([slices("chat-0", "chat-1", "chat-2")], namespace)
        await found.until("chat-0", "chat-1", "chat-2")
        server.stop()
        await found.until_failed("kubernetes")
        server.compact()
        server.start()
        server.apply([slices("chat-0", "chat-2")], namespace)
        server.compact()
        await found.until("chat-0", "chat-2")
        assert not found.drained("chat-0")
        server.kubectl("delete", "endpointslice", "chat-1", "--namespace", namespace)
        await found.until()
        assert found.drained("chat-0")
        assert found.metric("current", "kubernetes") == 1

    follow(configured(namespace, account), scenario)


def test_a_pod_that_ends_is_drained(server: ApiServer, namespace: str, account: Path) -> None:
    """As its endpoint says that it terminates."""

    async def scenario(found: Found) -> None:
        server.apply([slices("chat-0")], namespace)
        await found.until("chat-0")
        found.answer("chat-0")
        server.apply([slices("chat-0", ready=False)], namespace)
        await found.until()
        assert found.drained("chat-0")

    follow(configured(namespace, account), scenario, drains=False)


@pytest.mark.parametrize(
    ("verb", "resource", "other"),
    [
        ("get", "endpointslices/chat-1", False),
        ("list", "secrets", False),
        ("list", "pods", False),
        ("list", "endpointslices", True),
        ("create", "pods", False),
    ],
)
def test_the_account_may_do_nothing_else(
    server: ApiServer, namespace: str, account: Path, verb: str, resource: str, other: bool
) -> None:
    """It lists and watches slices in its namespace; no other verb, resource or namespace is open to it."""

    def may(verb: str, resource: str, where: str) -> str:
        return server.call("auth", "can-i", verb, resource, "-n", where, kubeconfig=account).stdout.strip()

    assert {may(verb, "endpointslices", namespace) for verb in ("list", "watch")} == {"yes"}
    assert may(verb, resource, "monitoring" if other else namespace) == "no"


def test_a_stranger_is_told(server: ApiServer, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without the binding the server's own words are in the log, with the account that lacks the right."""
    server.kubectl("create", "serviceaccount", "nobody", "--namespace", namespace)
    token = server.kubectl("create", "token", "nobody", "--namespace", namespace).strip()

    async def scenario(found: Found) -> None:
        await found.until_failed("kubernetes")
        who = f"system:serviceaccount:{namespace}:nobody"
        assert re.search(rf'403 endpointslices.*is forbidden: User "{who}" cannot list', caplog.text)

    follow(configured(namespace, server.kubeconfig("nobody", token)), scenario)
