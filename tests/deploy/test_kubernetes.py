"""The manifests and the chart for Kubernetes: valid by its schemas, of one mind, and fit for the proxy."""

import copy
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from proxy.cli import hook, main
from proxy.config import Config, loads
from proxy.config.names import Resolver, doubts
from tests.deploy.helm import ValuesError, chosen, lint, render, render_all
from tests.deploy.schemas import VERSIONS, mistakes
from tests.docs.pages import ROOT
from tests.docs.test_commands import parse
from tests.docs.test_dockerfile import STEPS

FOLDER = ROOT / "deploy/kubernetes"
BASE = FOLDER / "base"
POD: dict[str, Any] = {
    "env": [{"name": "MODEL", "value": "small"}],
    "envFrom": [{"secretRef": {"name": "more"}}],
    "volumes": [{"name": "certificate", "secret": {"secretName": "certificate"}}],
    "volumeMounts": [{"name": "certificate", "mountPath": "/etc/certificate", "readOnly": True}],
    "podLabels": {"team": "a"},
    "podAnnotations": {"note": "b"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "chat", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "high",
}
ALL_ON: dict[str, Any] = {
    "labels": {"team": "a"},
    "imagePullSecrets": ["registry"],
    "proxy": {
        **POD,
        "trusted": ["10.244.0.0/16"],
        "discovery": {"enabled": True},
        "service": {
            "type": "LoadBalancer",
            "annotations": {"a": "b"},
            "appProtocol": "kubernetes.io/ws",
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["203.0.113.0/24"],
        },
    },
    "chat": {**POD, "replicas": 5, "healthPath": "/chat/health", "metrics": {"enabled": True}},
    "networkPolicy": {"egress": [{"ports": [{"port": 4318}]}]},
    "serviceMonitor": {"enabled": True, "namespace": "monitoring", "labels": {"release": "stack"}},
    "prometheusRule": {"enabled": True, "namespace": "monitoring", "labels": {"release": "stack"}},
    "dashboard": {"enabled": True},
}
LITTLE = {
    "proxy": {"autoscaling": {"enabled": False}, "replicas": 1},
    "chat": {"forwardedAllowIps": "10.244.0.0/16"},
    "networkPolicy": {"enabled": False},
}
ENVIRONMENT = {
    "ADMIN_TOKEN": "some-token",
    "AFFINITY_SECRET": "some-secret",
    "NAMESPACE": "chat",
    "HOOK_TOKEN": "h",
    "SESSIONS_URL": "redis://:password@valkey:6379/0",
}
PROXY, CHAT = ("Deployment", "chainlit-proxy"), ("StatefulSet", "chat")
CRDS = {"PodMonitor", "PrometheusRule", "ServiceMonitor"}  # validated by tests/deploy/test_monitoring.py

Objects = dict[tuple[str, str], dict[str, Any]]


def keyed(documents: list[dict[str, Any]]) -> Objects:
    """Objects by kind and name; no two are the same."""
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents)
    return found


@cache
def base() -> Objects:
    """The base, with the files that kustomize makes config maps of."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    documents: list[dict[str, Any]] = []
    for name in kustomization["resources"]:
        documents += yaml.safe_load_all((BASE / name).read_text(encoding="utf-8"))
    for generator in kustomization["configMapGenerator"]:
        data = {name: (BASE / name).read_text(encoding="utf-8") for name in generator["files"]}
        documents.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        )
    return keyed(documents)


@cache
def charts() -> dict[str, Objects]:
    """What the chart renders: by default, with everything on, and with as little as can be."""
    return dict(
        zip(
            ("default", "all", "little"),
            map(keyed, render_all([chosen(values) for values in ({}, ALL_ON, LITTLE)])),
            strict=True,
        )
    )


def everything() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of the base, the components and the chart with everything on."""
    for name, objects in {"base": base(), "all": charts()["all"]}.items():
        for (kind, own), document in objects.items():
            yield f"{name}-{kind}-{own}", document
    for file in (FOLDER / "monitoring/servicemonitor.yaml", FOLDER / "discovery/role.yaml"):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            yield f"{file.parent.name}-{document['kind']}", document


def test_every_object_keeps_to_the_schema() -> None:
    """No field is unknown and no value is wrong, in the newest three and the oldest Kubernetes."""
    seen = 0
    for name, document in everything():
        if document["kind"] in CRDS:
            continue
        for version in VERSIONS:
            assert mistakes(document, version) == [], f"{name}, {version}"
        seen += 1
    assert seen > 25


def test_the_schema_would_refuse_a_mistake() -> None:
    """A field that is misspelt, and a value of another type, are seen."""
    for damage in ({"replicsa": 3}, {"replicas": "three"}):
        document = copy.deepcopy(base()[CHAT])
        document["spec"].update(damage)
        assert len(mistakes(document)) == 1


def without_checksums(document: dict[str, Any]) -> dict[str, Any]:
    """An object without what says that a file has changed; the proxy's file is compared by its meaning."""
    document = copy.deepcopy(document)
    document["metadata"].pop("labels", None)
    if "template" in document.get("spec", {}):
        document["spec"]["template"]["metadata"].pop("annotations", None)
    if document["kind"] == "Service":
        document["spec"].setdefault("type", "ClusterIP")
    if document["kind"] == "ConfigMap":
        document["data"] = {
            name: loads(text, environ=ENVIRONMENT) if name == "proxy.yaml" else text.rstrip("\n")
            for name, text in document["data"].items()
        }
    return document


def test_the_chart_is_the_base() -> None:
    """With its own values the chart renders the base, object for object: none of the two is forgotten."""
    chart = charts()["default"]
    assert chart.keys() == base().keys()
    for key, document in base().items():
        assert without_checksums(chart[key]) == without_checksums(document), key


def test_helm_has_nothing_to_say() -> None:
    """Its linter, as strict as it can be, finds no more than that an icon is missing."""
    assert [told for told in lint(ALL_ON) if "icon is recommended" not in told] == []


def test_wrong_values_are_refused() -> None:
    """The schema of the values knows every key, and what may stand there."""
    for values in (
        {"chat": {"replicsa": 3}},
        {"clusterDomain": "a:b"},
        {"proxy": {"service": {"type": "Cluster"}}},
    ):
        with pytest.raises(ValuesError):
            render(**values)


@pytest.mark.parametrize("name", ["base", "default", "little"])
def test_the_configuration_passes_check(name: str, tmp_path: Path) -> None:
    """The proxy's file is right, and has a backend for every pod, by its own name."""
    objects = base() if name == "base" else charts()[name]
    file = tmp_path / "proxy.yaml"
    file.write_text(objects["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"])
    done = CliRunner().invoke(main, ["check", "-c", str(file)], env=ENVIRONMENT)
    assert done.exit_code == 0, done.output
    chat = objects[CHAT]["spec"]
    config = loads(file.read_text(), environ=ENVIRONMENT)
    port = container(objects[CHAT])["ports"][0]["containerPort"]
    service = chat["serviceName"]
    assert [backend.url for backend in config.backends] == [
        f"http://chat-{number}.{service}.chat.svc.cluster.local.:{port}" for number in range(chat["replicas"])
    ]
    assert config.health.path == container(objects[CHAT])["startupProbe"]["httpGet"]["path"]


@pytest.mark.parametrize("name", ["base", "default", "all", "little"])
def test_no_name_falls_through(name: str) -> None:
    """No host in the proxy's file is a relative name with a dot, in a pod's resolver or in any other."""
    text = (base() if name == "base" else charts()[name])["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"]
    for ndots in (1, 5):
        resolver = Resolver(("chat.svc.cluster.local", "svc.cluster.local", "cluster.local"), ndots)
        assert list(doubts(loads(text, environ=ENVIRONMENT), resolver)) == []
    assert all(backend.address.host.endswith(".") for backend in loads(text, environ=ENVIRONMENT).backends)


def test_the_namespace_comes_from_the_pod() -> None:
    """The variable in the names is set wherever they are applied; the domain is a value."""
    for objects in (base(), charts()["default"]):
        entries = {entry["name"]: entry for entry in container(objects[PROXY])["env"]}
        assert entries["NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace"
    for domain in ("cluster.example", "cluster.example."):
        objects = keyed(render(clusterDomain=domain))
        config = loads(objects["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"], environ=ENVIRONMENT)
        assert config.backends[0].address.host == "chat-0.chat.chat.svc.cluster.example."


def test_the_configuration_with_discovery_passes_check(tmp_path: Path) -> None:
    """The component's and the chart's are one: the Service that there is, and a port that it names."""
    text = (FOLDER / "discovery/proxy.yaml").read_text(encoding="utf-8")
    file = tmp_path / "proxy.yaml"
    file.write_text(text)
    done = CliRunner().invoke(main, ["check", "-c", str(file)], env=ENVIRONMENT)
    assert done.exit_code == 0, done.output
    rendered = keyed(render(proxy={"discovery": {"enabled": True}}))["ConfigMap", "chainlit-proxy"]
    config = loads(text, environ=ENVIRONMENT)
    assert loads(rendered["data"]["proxy.yaml"], environ=ENVIRONMENT) == config
    found = config.discovery.kubernetes
    service = base()["Service", str(found.service)]["spec"]
    assert found.port in [port["name"] for port in service["ports"]]


def test_more_of_the_configuration_is_merged() -> None:
    """`proxy.config` changes what it names and nothing else."""
    objects = keyed(render(proxy={"config": {"balance": {"bound": 2}, "log": {"access": False}}}))
    config = loads(objects["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"], environ=ENVIRONMENT)
    assert (config.balance.bound, config.log.access, config.log.format) == (2, False, "json")


def container(document: dict[str, Any]) -> dict[str, Any]:
    """The only container of a workload."""
    (only,) = document["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize("key", [PROXY, CHAT])
def test_a_pod_may_do_little(key: tuple[str, str]) -> None:
    """It is not root, writes nothing, has no capability, and no token of the API unless it needs one."""
    pod = base()[key]["spec"]["template"]["spec"]
    user = next(rest for word, rest in STEPS if word == "USER").split(":")[0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert str(pod["securityContext"]["runAsUser"]) == user
    assert pod["automountServiceAccountToken"] is False
    assert container(base()[key])["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("key", [PROXY, CHAT])
def test_the_arguments_are_ours(key: tuple[str, str]) -> None:
    """What the containers start is a command of chainlit-proxy, the entry point of both images."""
    parse(container(base()[key])["args"])


def test_the_app_has_its_own_root() -> None:
    """Neither the manifests nor the image move Chainlit's root away from the app's own files."""
    for objects in (base(), charts()["default"]):
        assert "CHAINLIT_APP_ROOT" not in {entry["name"] for entry in container(objects[CHAT])["env"]}
    assert not [rest for word, rest in STEPS if word == "ENV" and "CHAINLIT_APP_ROOT" in rest]


def test_there_is_time_to_leave() -> None:
    """Kubernetes waits for the hook and for the process behind it."""
    proxy, chat = (base()[key]["spec"]["template"]["spec"] for key in (PROXY, CHAT))
    sleep = int(container(base()[PROXY])["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert proxy["terminationGracePeriodSeconds"] > sleep + Config().timeouts.shutdown
    seconds = int(container(base()[CHAT])["lifecycle"]["preStop"]["exec"]["command"][-1])
    late = hook.LATE + hook.LOOK + 2 * hook.PATIENCE  # DNS, and the proxies
    assert (
        chat["terminationGracePeriodSeconds"] > seconds + late + 26
    )  # Chainlit's end with clients that poll


def test_slow_is_not_dead() -> None:
    """No probe ends an instance before the proxy would give it up."""
    probe = container(base()[CHAT])["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > Config().health.evict_after
    assert base()["Service", "chat"]["spec"]["publishNotReadyAddresses"] is True


def test_the_role_is_for_endpoints_only() -> None:
    """It reads EndpointSlices in its own namespace; nothing else, and by default there is no role."""
    (rule,) = charts()["all"]["Role", "chainlit-proxy"]["rules"]
    assert rule == {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["list", "watch"],
    }
    assert ("Role", "chainlit-proxy") not in charts()["default"]


@pytest.mark.parametrize("event", ["postStart", "preStop", "readinessProbe"])
def test_the_hooks_are_ours(event: str) -> None:
    """A command of the image, for all admin listeners, with a token from a file that is there.

    They are named absolutely: the token goes to nobody whom a search domain of the node knows by that name.
    """
    for objects in (base(), charts()["default"]):
        pod = objects[CHAT]["spec"]["template"]["spec"]
        handlers = container(objects[CHAT]) | container(objects[CHAT])["lifecycle"]
        program, *words = handlers[event]["exec"]["command"]
        assert program == "chainlit-proxy"
        parse(words)
        given = dict(pairwise(words))
        entries = {entry["name"]: entry for entry in container(objects[CHAT])["env"]}
        host, _, port = entries["CHAINLIT_PROXY_ADMIN"]["value"].partition(":")
        name, _, domain = host.partition(".")
        assert domain == "$(CHAINLIT_PROXY_NAMESPACE).svc.cluster.local."
        assert list(entries).index("CHAINLIT_PROXY_NAMESPACE") < list(entries).index("CHAINLIT_PROXY_ADMIN")
        service = objects["Service", name]["spec"]
        assert (service["clusterIP"], str(service["ports"][0]["port"])) == ("None", port)
        (mount,) = (m for m in container(objects[CHAT])["volumeMounts"] if m["name"] == "hooks")
        (volume,) = (v for v in pod["volumes"] if v["name"] == "hooks")
        (item,) = volume["secret"]["items"]
        assert given["--token-file"] == f"{mount['mountPath']}/{item['path']}"
        entries = {entry["name"]: entry for entry in container(objects[PROXY])["env"]}
        assert entries["HOOK_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == item["key"]


def test_a_pod_is_ready_when_the_proxies_take_it() -> None:
    """They are asked in time, and find it before it is ready: else each would wait for the other."""
    for objects in (base(), *charts().values()):
        probe = container(objects[CHAT])["readinessProbe"]
        assert "taken" in probe["exec"]["command"]
        assert hook.PATIENCE + 1 < probe["timeoutSeconds"] <= probe["periodSeconds"]
        assert objects["Service", "chat"]["spec"]["publishNotReadyAddresses"] is True


def test_the_app_has_no_token_of_operators() -> None:
    """What the app starts has the environment of the pod, and could do whatever an operator may."""
    for objects in (base(), charts()["default"]):
        entries = {entry["name"]: entry for entry in container(objects[CHAT])["env"]}
        keys = {entry.get("valueFrom", {}).get("secretKeyRef", {}).get("key") for entry in entries.values()}
        assert keys - {None} == {"sessions-url", "auth-secret"}


def test_kustomize_builds_the_base_and_its_components(tmp_path: Path) -> None:
    """It renders what is read here, and the components change what they should."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on this machine")
    copied = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [kubernetes/base]\ncomponents: [kubernetes/monitoring, kubernetes/discovery]\n"
    )

    def built(folder: Path) -> Objects:
        done = subprocess.run(
            [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return keyed(list(yaml.safe_load_all(done.stdout)))

    plain, whole = built(copied / "base"), built(tmp_path)
    maps = {("ConfigMap", "chainlit-proxy")}
    assert {key for key in plain if key[0] != "ConfigMap"} == base().keys() - maps
    added = {key for key in whole.keys() - plain.keys() if key[0] != "ConfigMap"}
    kinds = ("Role", "RoleBinding", "ServiceMonitor", "PrometheusRule")
    assert added == {(kind, "chainlit-proxy") for kind in kinds}
    assert whole["ConfigMap", "chainlit-proxy-dashboard"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert whole[PROXY]["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    mounted = whole[PROXY]["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
    assert "discovery" in yaml.safe_load(whole["ConfigMap", mounted]["data"]["proxy.yaml"])
    for document in whole.values():
        if document["kind"] not in CRDS:
            assert mistakes(document) == []
