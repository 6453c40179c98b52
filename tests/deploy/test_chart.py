"""The values of the chart: told as a whole, taken as they are, and refused where nobody can guess them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from proxy.config import Config, loads
from proxy.units import seconds
from tests.deploy.crds import refusal
from tests.deploy.helm import CHART, ValuesError, render, render_all
from tests.deploy.schemas import mistakes
from tests.deploy.test_kubernetes import (
    CHAT,
    CRDS,
    ENVIRONMENT,
    POD,
    PROXY,
    base,
    charts,
    container,
    keyed,
)
from tests.docs.pages import ROOT, Piece, found, table

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
PAGE = ROOT / "docs/deployment/chart.md"
TOLD_AS_ONE = ("resources", "tmp", "labels")  # what Kubernetes or the user fills
NASTY = [
    "0123",
    "true",
    "null",
    "1e3",
    "a: b",
    "a, path: /x",
    "a # b",
    "{{ .Release.Name }}",
    "'\"",
    "{a}",
    "*a",
    "é\n- x",
]
POD_KEYS = {"nodeSelector", "tolerations", "affinity", "priorityClassName"}


def leaves(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every value by its dotted name."""
    for key, value in values.items():
        if isinstance(value, dict) and value and key not in TOLD_AS_ONE:
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def test_the_table_of_values_is_whole() -> None:
    """Each value is in the page, with its default as the file has it, and no other is."""
    rows = {name.strip("`"): row[1] for row in table(PAGE, "Values") for name in row[0].split(", ")}
    wanted = dict(leaves(VALUES))
    both = {name for name in rows if name.startswith("*.")}
    for name in both:  # those that proxy and chat have alike
        for part in ("proxy", "chat"):
            rows[f"{part}.{name[2:]}"] = rows[name]
        del rows[name]
    assert rows.keys() == wanted.keys()
    for name, default in wanted.items():
        assert yaml.safe_load(rows[name].strip("`")) == default, name


@pytest.mark.parametrize(
    "block", [one for one in found("yaml") if one.text.startswith("# values for the chart")], ids=str
)
def test_the_values_on_the_pages_are_right(block: Piece) -> None:
    """The chart takes them, and what it renders is valid."""
    for document in render_all([yaml.safe_load(block.text)])[0]:
        refused = refusal(document) if document["kind"] in CRDS else mistakes(document)
        assert not refused


def test_the_schema_knows_every_value() -> None:
    """And none that is not there: a key that is misspelt is refused at every level."""

    def known(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
        for key, inner in schema.get("properties", {}).items():
            if inner.get("properties"):
                assert inner["additionalProperties"] is False
                yield from known(inner, (*path, key))
            else:
                yield ".".join((*path, key))

    assert set(known(SCHEMA)) - {"global"} == {name for name, _ in leaves(VALUES)}


def test_nobody_is_trusted_by_guess() -> None:
    """Without a choice the chart says what is wanted; with one it is the proxy's, the empty one too."""
    for values in ({}, {"proxy": {"trusted": None}}):
        with pytest.raises(ValuesError, match=r"proxy\.trusted has to be chosen: the networks"):
            render_all([values])
    for trusted in ([], ["10.244.0.0/16"]):
        assert [str(one) for one in proxys(proxy={"trusted": trusted}).forwarded.trusted] == trusted
    assert (
        loads(
            base()["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"], environ=ENVIRONMENT
        ).forwarded.trusted
        == ()
    )


def proxys(**values: Any) -> Config:
    """The proxy's configuration."""
    text = keyed(render(**values))["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"]
    return loads(text, environ=ENVIRONMENT)


@pytest.mark.parametrize(
    ("timeouts", "grace"),
    [
        ({}, 45),
        ({"shutdown": 120}, 135),
        ({"shutdown": 0.5}, 16),
        ({"hand_over": 600}, 645),
        ({"shutdown": 0}, 15),
        ({"shutdown": "1m30s", "hand_over": "500ms"}, 106),
        ({"shutdown": "0.5h"}, 1815),
        (None, 45),
    ],
)
def test_the_grace_follows_the_timeouts(timeouts: dict[str, float | str] | None, grace: int) -> None:
    """Kubernetes waits for preStop and for as long as the proxy takes to end."""
    pod = keyed(render(proxy={"config": {"timeouts": timeouts}}))[PROXY]["spec"]["template"]["spec"]
    sleep = int(
        container({"spec": {"template": {"spec": pod}}})["lifecycle"]["preStop"]["exec"]["command"][-1]
    )
    assert pod["terminationGracePeriodSeconds"] == grace
    given = {"shutdown": 30, "hand_over": 0} | (timeouts or {})
    assert grace > sleep + sum((seconds(str(value)) or float(value)) for value in given.values())


def test_several_proxies_share_a_directory() -> None:
    """By default in the Redis of the sessions, which the policy lets them reach; none goes as if alone."""
    objects = charts()["default"]
    variables = {entry["name"]: entry for entry in container(objects[PROXY])["env"]}
    assert variables["SESSIONS_URL"]["valueFrom"]["secretKeyRef"]["key"] == "sessions-url"
    config = proxys()
    assert config.affinity.directory.redis is not None
    assert {"ports": [{"port": 6379, "protocol": "TCP"}]} in objects["NetworkPolicy", "chainlit-proxy"][
        "spec"
    ]["egress"]
    without = keyed(render(proxy={"directory": {"enabled": False}}))
    assert proxys(proxy={"directory": {"enabled": False}}).affinity.locate == "always"
    assert "SESSIONS_URL" not in {entry["name"] for entry in container(without[PROXY])["env"]}
    assert {"ports": [{"port": 6379, "protocol": "TCP"}]} not in without["NetworkPolicy", "chainlit-proxy"][
        "spec"
    ]["egress"]
    alone = proxys(proxy={"autoscaling": {"enabled": False}, "replicas": 1}).affinity
    assert (alone.directory.redis, alone.locate) == (None, "auto")


def test_a_variable_is_there_once() -> None:
    """One that the values set takes the place of the chart's own: server-side apply refuses a duplicate."""
    given = [{"name": "FORWARDED_ALLOW_IPS", "value": "10.244.0.0/16"}, {"name": "MODEL", "value": "small"}]
    objects = keyed(
        render(chat={"env": given}, proxy={"env": [{"name": "AFFINITY_SECRET", "value": "x" * 16}]})
    )
    for key in (CHAT, PROXY):
        names = [entry["name"] for entry in container(objects[key])["env"]]
        assert len(names) == len(set(names))
    entries = {entry["name"]: entry for entry in container(objects[CHAT])["env"]}
    assert [entries[one["name"]] for one in given] == given
    assert container(objects[PROXY])["env"][-1] == {"name": "AFFINITY_SECRET", "value": "x" * 16}


def test_labels_of_the_user_do_not_take_the_place_of_the_charts() -> None:
    """What selects and what is selected by stays; the rest is added."""
    given = {f"app.kubernetes.io/{name}": "x" for name in ("name", "instance", "component", "part-of")}
    objects = keyed(render(labels={**given, "team": "a"}))
    admin = objects["Service", "chainlit-proxy-admin"]["metadata"]["labels"]
    plain = charts()["default"]["Service", "chainlit-proxy-admin"]["metadata"]["labels"]
    assert admin == {**plain, "team": "a"}


def test_strings_stay_strings() -> None:
    """Whatever stands in a value, no object has a number, a key or an object in its place."""
    values = [
        {
            "secret": nasty,
            "imagePullSecrets": [nasty],
            "labels": {"note": nasty},
            "networkPolicy": {"monitoring": nasty},
            "serviceMonitor": {"enabled": True, "namespace": nasty, "labels": {"a": nasty}},
            "prometheusRule": {"enabled": True, "namespace": nasty, "labels": {"a": nasty}},
            "dashboard": {"enabled": True, "namespace": nasty, "labels": {"a": nasty}},
            "chat": {
                "image": nasty,
                "healthPath": f"/{nasty}",
                "forwardedAllowIps": nasty,
                "args": [nasty],
                "env": [{"name": "A", "value": nasty}],
                "podAnnotations": {"a": nasty},
                "priorityClassName": nasty,
            },
            "proxy": {
                "trusted": [],
                "image": nasty,
                "service": {"annotations": {"a": nasty}, "appProtocol": nasty},
                "env": [{"name": "A", "value": nasty}],
                "podLabels": {"a": nasty},
                "priorityClassName": nasty,
            },
        }
        for nasty in NASTY
    ]
    for nasty, documents in zip(NASTY, render_all(values), strict=True):
        objects = keyed(documents)
        for key in (CHAT, PROXY):
            pod = objects[key]["spec"]["template"]["spec"]
            entries = {entry["name"]: entry for entry in container(objects[key])["env"]}
            assert container(objects[key])["image"] == nasty
            secrets = [entry.get("valueFrom", {}).get("secretKeyRef") for entry in entries.values()]
            assert {secret["name"] for secret in secrets if secret} == {nasty}
            assert entries["A"]["value"] == nasty
            assert pod["priorityClassName"] == nasty
            assert pod["imagePullSecrets"] == [{"name": nasty}]
        chat = container(objects[CHAT])
        assert (chat["args"], chat["startupProbe"]["httpGet"]["path"]) == ([nasty], f"/{nasty}")
        assert {"name": "FORWARDED_ALLOW_IPS", "value": nasty} in chat["env"]
        assert objects["Service", "chainlit-proxy"]["metadata"]["annotations"] == {"a": nasty}
        assert objects["Service", "chainlit-proxy"]["spec"]["ports"][0]["appProtocol"] == nasty
        peers = objects["NetworkPolicy", "chainlit-proxy"]["spec"]["ingress"][1]["from"]
        assert peers[1]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": nasty}
        for document in documents:
            assert document["metadata"]["labels"]["note"] == nasty
            if document["metadata"].get("namespace"):
                assert (document["metadata"]["namespace"], document["metadata"]["labels"]["a"]) == (
                    nasty,
                    nasty,
                )
            if document["kind"] not in CRDS:
                assert [told for told in mistakes(document) if "is not of type" in told] == []


def test_what_kubernetes_has_for_pods_can_be_set() -> None:
    """Placing, variables, volumes, labels and annotations come to both, beside those of the chart."""
    for key in (CHAT, PROXY):
        template = charts()["all"][key]["spec"]["template"]
        pod = template["spec"]
        assert {name: pod[name] for name in POD_KEYS} == {name: POD[name] for name in POD_KEYS}
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert POD["podLabels"].items() <= template["metadata"]["labels"].items()
        assert POD["podAnnotations"].items() <= template["metadata"]["annotations"].items()
        assert container(charts()["all"][key])["envFrom"] == POD["envFrom"]
        assert all(one in pod["volumes"] for one in POD["volumes"])
        assert all(one in container(charts()["all"][key])["volumeMounts"] for one in POD["volumeMounts"])
        assert container(charts()["all"][key])["imagePullPolicy"] == "IfNotPresent"


def test_a_load_balancer_may_keep_the_clients_addresses() -> None:
    """Without an ingress its connections have to come with them, and only from where they should."""
    spec = charts()["all"]["Service", "chainlit-proxy"]["spec"]
    assert (spec["externalTrafficPolicy"], spec["loadBalancerSourceRanges"]) == ("Local", ["203.0.113.0/24"])
    assert "externalTrafficPolicy" not in charts()["default"]["Service", "chainlit-proxy"]["spec"]


def test_fewer_pods_in_two_steps() -> None:
    """The proxies may know more pods than there are to be: those that drain are still theirs."""
    objects = keyed(render(chat={"replicas": 3, "backends": 5}))
    assert objects[CHAT]["spec"]["replicas"] == 3
    assert len(proxys(chat={"replicas": 3, "backends": 5}).backends) == 5


def test_selectors_are_of_this_release() -> None:
    """No other Deployment called chat joins a Service, a policy or a budget.

    A ServiceMonitor selects Services, whose labels others change: see tests/deploy/test_overlay.py.
    """

    def selectors(node: Any) -> Iterator[dict[str, str]]:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("selector", "podSelector", "labelSelector") and isinstance(value, dict):
                    yield value.get("matchLabels", value)
                else:
                    yield from selectors(value)
        elif isinstance(node, list):
            for value in node:
                yield from selectors(value)

    for objects, instance in ((base(), "site"), (charts()["all"], "site")):
        pods = [objects[key]["spec"]["template"]["metadata"]["labels"] for key in (PROXY, CHAT)]
        of_pods = [one for (kind, _), one in objects.items() if kind != "ServiceMonitor"]
        found = [one for document in of_pods for one in selectors(document)]
        assert len(found) > 10
        for selector in found:
            assert selector["app.kubernetes.io/instance"] == instance
            assert any(selector.items() <= labels.items() for labels in pods)
    for document in charts()["all"].values():
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["helm.sh/chart"] == "chainlit-proxy-0.1.0"


def test_no_variables_of_services_come_to_pods() -> None:
    """A Service called `chainlit` would set CHAINLIT_PORT, at which Chainlit stops."""
    for objects in (base(), *charts().values()):
        for key in (PROXY, CHAT):
            assert objects[key]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_an_update_waits_until_the_proxies_see_it() -> None:
    """A new pod is known by DNS, 30 s old at the worst, and by two good probes, before the next one goes."""
    health = Config().health
    for objects in (base(), charts()["default"]):
        assert objects[CHAT]["spec"]["minReadySeconds"] > 30 + health.rise * health.interval
        assert objects[PROXY]["spec"]["minReadySeconds"] >= 10


@pytest.mark.parametrize("surge", [2, "100%"])
def test_an_update_may_start_many_proxies_at_once(surge: int | str) -> None:
    """Clients then come to new ones, and not from one old one to the next."""
    strategy = keyed(render(proxy={"maxSurge": surge}))[PROXY]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": surge}


def test_commands_in_the_container_have_the_token() -> None:
    """`chainlit-proxy status` needs no `--token`, which everybody on the node could read."""
    for objects in (base(), charts()["default"]):
        entries = {entry["name"]: entry for entry in container(objects[PROXY])["env"]}
        assert entries["CHAINLIT_PROXY_TOKEN"]["valueFrom"] == entries["ADMIN_TOKEN"]["valueFrom"]


def test_proxies_leave_one_by_one() -> None:
    """The autoscaler takes one in five minutes: each sends its clients away."""
    for objects in (base(), charts()["default"]):
        down = objects["HorizontalPodAutoscaler", "chainlit-proxy"]["spec"]["behavior"]["scaleDown"]
        assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]


def test_uploads_have_room() -> None:
    """The volume holds more than the five files of 500 MB of one user; the pod asks for some of it."""
    for objects in (base(), charts()["default"]):
        volumes = {one["name"]: one for one in objects[CHAT]["spec"]["template"]["spec"]["volumes"]}
        assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "8Gi"}
        assert container(objects[CHAT])["resources"]["requests"]["ephemeral-storage"] == "1Gi"
    own = {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}
    objects = keyed(render(chat={"tmp": own}))
    volumes = {one["name"]: one for one in objects[CHAT]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["tmp"] == {"name": "tmp", **own}, "a volume has one kind"


def test_images_that_were_loaded_are_used() -> None:
    """No tag is `latest`, which would be pulled each time, and what is there is not pulled."""
    for objects in (base(), charts()["default"]):
        for key in (PROXY, CHAT):
            assert not container(objects[key])["image"].endswith(":latest")
            assert container(objects[key])["imagePullPolicy"] == "IfNotPresent"


def test_policies_know_the_ports_of_other_clusters() -> None:
    """DNS in OpenShift's pods, the API server of MicroK8s."""
    egress = charts()["all"]["NetworkPolicy", "chainlit-proxy"]["spec"]["egress"]
    ports = {port["port"] for rule in egress for port in rule["ports"]}
    assert {53, 5353, 443, 6443, 16443, 4318} <= ports


def test_an_app_may_take_long_to_start() -> None:
    """Its time is a value; the probe has that much patience."""
    probe = container(keyed(render(chat={"startSeconds": 601}))[CHAT])["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 601


def test_a_balancer_can_ask_on_the_clients_port() -> None:
    """The proxy answers for itself at the path that the pages name."""
    path = proxys().health.listen_path
    assert path == "/.chainlit-proxy/healthz"
    for page in ("balancer", "kubernetes"):
        assert path in (ROOT / f"docs/deployment/{page}.md").read_text(encoding="utf-8")
