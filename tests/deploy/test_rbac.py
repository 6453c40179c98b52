"""What the proxies may ask of the API server is what discovery asks, and nothing more.

No package brings an API server to try it on, so the calls that discovery makes of a stand-in are read as
Kubernetes' authorizer reads them: by the group, the resource and the verb of their path.
"""

import re
from typing import Any

import pytest
import yaml

from proxy.config import loads
from tests.deploy.test_kubernetes import FOLDER, PROXY, base, charts
from tests.support.finding import WITHIN, Found, follow
from tests.support.kubernetes_server import ApiServer, endpoint, of_service
from tests.support.waiting import eventually

Rights = set[tuple[str, str, str]]
_PATH = re.compile(r"/apis/([^/]+)/v1/namespaces/([^/]+)/([^/]+)(/[^/]+)?")


def right(asked: dict[str, str]) -> tuple[str, str, str]:
    """Group, resource and verb of a GET (apiserver/pkg/endpoints/request/requestinfo.go)."""
    match = _PATH.fullmatch(asked["path"])
    assert match, asked
    group, namespace, resource, name = match.groups()
    assert namespace == "chat"
    if asked.get("watch", "").lower() in {"true", "1"}:
        return group, resource, "watch"
    return group, resource, "get" if name else "list"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Rights:
    """What discovery asks in a whole life: a list, a watch that is cut, and a place that is forgotten."""
    server = ApiServer()
    folder = tmp_path_factory.mktemp("cluster")
    asked = f"{{service: chainlit, namespace: chat, kubeconfig: '{server.kubeconfig(folder)}'}}"

    async def scenario(found: Found) -> None:
        await server.put(of_service("s-1", endpoint("chat-0", "10.0.0.1")))
        await found.until("chat-0")
        await eventually(lambda: server.watches == 1, WITHIN, "a watch")
        server.compact()
        server.cut()
        await server.put(of_service("s-1", endpoint("chat-1", "10.0.0.2")))
        await found.until("chat-1")
        await eventually(lambda: server.lists > 1, WITHIN, "another list")

    follow(loads(f"discovery: {{kubernetes: {asked}}}", need_backends=True), scenario, beside=server)
    return {right(query) for query in server.asked}


def allowed(rules: list[dict[str, Any]]) -> Rights:
    """What the rules of a Role allow; no rule names an object or takes everything."""
    assert all(rule.keys() == {"apiGroups", "resources", "verbs"} for rule in rules)
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def component() -> list[dict[str, Any]]:
    """The Role and its binding for kustomize."""
    return list(yaml.safe_load_all((FOLDER / "discovery/role.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("whose", ["chart", "component"])
def test_the_role_is_what_discovery_asks(used: Rights, whose: str) -> None:
    """Each call is allowed, and each right is used."""
    objects = charts()["all"]
    role = objects["Role", "chainlit-proxy"] if whose == "chart" else component()[0]
    assert len(used) == 2
    assert allowed(role["rules"]) == used


@pytest.mark.parametrize("whose", ["chart", "component"])
def test_the_role_is_bound_to_the_account_of_the_pods(whose: str) -> None:
    """The binding names this Role and the account that the Deployment runs as, with its token mounted."""
    objects = charts()["all"]
    role, binding = component()
    if whose == "chart":
        role, binding = objects["Role", "chainlit-proxy"], objects["RoleBinding", "chainlit-proxy"]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    (subject,) = binding["subjects"]
    pod = (objects if whose == "chart" else base())[PROXY]["spec"]["template"]["spec"]
    assert subject == {"kind": "ServiceAccount", "name": pod["serviceAccountName"]}
    assert charts()["all"][PROXY]["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert base()[PROXY]["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_without_discovery_nobody_has_rights() -> None:
    """Neither the base nor the chart has a Role unless it is asked for."""
    for objects in (base(), charts()["default"]):
        assert {kind for kind, _ in objects} & {"Role", "RoleBinding", "ClusterRole"} == set()
