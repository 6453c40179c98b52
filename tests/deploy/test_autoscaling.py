"""The chart's autoscalers for the instances, and the query that both of them ask."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import Config, loads
from tests.deploy.helm import CHART, ValuesError, render
from tests.deploy.prometheus import MISSING, find
from tests.deploy.schemas import VERSIONS, mistakes
from tests.deploy.test_chart import NASTY
from tests.deploy.test_kubernetes import CHAT, ENVIRONMENT, PROXY, Objects, charts, keyed
from tests.docs.pages import found

HPA, KEDA = ("HorizontalPodAutoscaler", "chat"), ("ScaledObject", "chat")
SERVER = "http://prometheus-operated.monitoring.svc:9090"
KINDS: dict[str, dict[str, Any]] = {
    "hpa": {"hpa": {"enabled": True}},
    "keda": {"keda": {"enabled": True, "server": SERVER}},
}


def scaled(kind: str, *, config: dict[str, Any] | None = None, drain: int = 300, **more: Any) -> Objects:
    """A release with one of the autoscalers."""
    chat = {"autoscaling": {**KINDS[kind], **more}, "drainSeconds": drain}
    return keyed(render(proxy={"discovery": {"enabled": True}, "config": config or {}}, chat=chat))


@cache
def both() -> dict[str, Objects]:
    """A release with each of them."""
    return {kind: scaled(kind) for kind in KINDS}


def behavior(objects: Objects) -> dict[str, Any]:
    """How the number of pods may change."""
    if HPA in objects:
        return dict(objects[HPA]["spec"]["behavior"])
    return dict(objects[KEDA]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"])


def query(objects: Objects) -> str:
    """What KEDA asks Prometheus."""
    (trigger,) = objects[KEDA]["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


def test_nothing_scales_the_instances_by_default() -> None:
    """Their number is the value, and nobody else's."""
    for objects in charts().values():
        assert not {HPA, KEDA} & objects.keys()
        assert "replicas" in objects[CHAT]["spec"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_stateful_set_leaves_its_number_to_the_autoscaler(kind: str) -> None:
    """A number of its own would be set again by each release, whatever is wanted."""
    objects = both()[kind]
    assert "replicas" not in objects[CHAT]["spec"]
    assert {HPA, KEDA} & objects.keys() == {HPA if kind == "hpa" else KEDA}


def test_the_autoscaler_keeps_to_the_schema() -> None:
    """It has one pod for each that the metric counts, within the bounds."""
    scaler = scaled("hpa", minReplicas=3, maxReplicas=7)[HPA]
    for version in VERSIONS:
        assert mistakes(scaler, version) == [], version
    spec = scaler["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 7)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "chat"}
    (metric,) = spec["metrics"]
    assert metric["external"] == {
        "metric": {"name": "chainlit_proxy_replicas_wanted"},
        "target": {"type": "AverageValue", "averageValue": "1"},
    }


def test_keda_has_the_same_rule() -> None:
    """Bounds, target and behaviour are those of the other one, and what it is told is text."""
    spec, other = scaled("keda", minReplicas=3, maxReplicas=7)[KEDA]["spec"], both()["hpa"][HPA]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (3, 7)
    assert spec["scaleTargetRef"] == other["scaleTargetRef"]
    assert behavior(both()["keda"]) == other["behavior"]
    (trigger,) = spec["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert (trigger["metadata"]["serverAddress"], trigger["metadata"]["threshold"]) == (SERVER, "1")


def test_a_prometheus_that_finds_nothing_takes_no_pods_away() -> None:
    """KEDA takes an empty answer for 0 unless told otherwise."""
    (trigger,) = both()["keda"][KEDA]["spec"]["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drain", [0, 300, 7200])
def test_a_pod_has_left_before_the_next_one_goes(kind: str, drain: int) -> None:
    """One at a time, each with its whole grace, or as long as Kubernetes lets an autoscaler wait."""
    objects = scaled(kind, drain=drain)
    grace = objects[CHAT]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    down = behavior(objects)["scaleDown"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": min(1800, grace)}]
    assert down["stabilizationWindowSeconds"] == 900


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"autoscaling": {**KINDS["hpa"], **KINDS["keda"]}}, "are both enabled"),
        ({"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}, r"chat\.autoscaling\.maxReplicas is less"),
        ({"autoscaling": {"keda": {"enabled": True}}}, r"chat\.autoscaling\.keda\.server has to be chosen"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], told: str) -> None:
    """The message names the value."""
    with pytest.raises(ValuesError, match=told):
        render(proxy={"discovery": {"enabled": True}}, chat=values)


@pytest.mark.parametrize(
    ("name", "figure"),
    [("answers", 0), ("answers", 0.5), ("sessions", "2k"), ("sessions", None), ("spare", -1)],
)
def test_a_figure_that_the_query_cannot_divide_by_is_refused(name: str, figure: object) -> None:
    """By 0 all pods there may be would be wanted, long before a proxy refuses its configuration."""
    with pytest.raises(ValuesError, match=rf"proxy\.config\.replicas\.{name} has to be a whole number"):
        scaled("keda", config={"replicas": {name: figure}})


def test_a_release_keeps_the_number_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an autoscaler has in its hands is asked of the cluster, by namespace and name.

    The cluster's answer is written into a copy of the chart: what renders here asks none, and
    leaves the number out.
    """
    copy = shutil.copytree(CHART, tmp_path / "chart")
    helpers = copy / "templates/_helpers.tpl"
    text = helpers.read_text(encoding="utf-8")
    asked = 'lookup "apps/v1" (index . 1) (index . 0).Release.Namespace (index . 2)'
    assert text.count(asked) == 1
    there = {"chat/StatefulSet/chat": 7, "chat/Deployment/chainlit-proxy": 4}
    cluster = " ".join(f'"{key}" (dict "spec" (dict "replicas" {count}))' for key, count in there.items())
    key = '(printf "%s/%s/%s" (index . 0).Release.Namespace (index . 1) (index . 2))'
    helpers.write_text(text.replace(asked, f"get (dict {cluster}) {key}"), encoding="utf-8")
    monkeypatch.setenv("CHART_UNDER_TEST", str(copy))
    for kind in KINDS:
        objects = scaled(kind)
        assert (objects[CHAT]["spec"]["replicas"], objects[PROXY]["spec"]["replicas"]) == (7, 4)
    fixed = keyed(render(chat={"replicas": 3}, proxy={"autoscaling": {"enabled": False}, "replicas": 2}))
    assert (fixed[CHAT]["spec"]["replicas"], fixed[PROXY]["spec"]["replicas"]) == (3, 2)
    monkeypatch.delenv("CHART_UNDER_TEST")
    assert "replicas" not in both()["hpa"][PROXY]["spec"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_proxies_have_to_find_pods_that_come_and_go(kind: str) -> None:
    """A list of backends would lack the new ones, or those that still drain."""
    with pytest.raises(ValuesError, match=r"chat\.autoscaling needs proxy\.discovery\.enabled"):
        render(chat={"autoscaling": KINDS[kind]})


def test_the_query_is_that_of_the_pages() -> None:
    """KEDA, prometheus-adapter and the page on capacity have one query, with the proxies' defaults."""
    (told,) = (one.text for one in found("promql") if one.page.name == "capacity.md" and "ceil" in one.text)
    (adapter,) = (one.text for one in found("yaml") if one.text.startswith("# values for prometheus-adapter"))
    (rule,) = yaml.safe_load(adapter)["rules"]["external"]
    asked = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"])
    expected = "".join(told.split())
    assert "".join(query(both()["keda"]).replace('{namespace="chat"}', "").split()) == expected
    assert "".join(asked.replace("{<<.LabelMatchers>>}", "").split()) == expected
    assert figures(told) == (Config().replicas.answers, Config().replicas.sessions, Config().replicas.spare)
    assert both()["hpa"][HPA]["spec"]["metrics"][0]["external"]["metric"]["name"] == rule["seriesQuery"]


def figures(text: str) -> tuple[int, ...]:
    """Answers and sessions that an instance carries, and the spare ones."""
    return tuple(map(int, re.findall(r"[/+] (\d+)", text)))


def test_the_query_has_the_figures_of_the_proxies() -> None:
    """What `replicas` of their configuration says counts for all of them together."""
    objects = scaled("keda", config={"replicas": {"answers": 10, "sessions": 1000000, "spare": 0}})
    assert figures(query(objects)) == (10, 1000000, 0)
    proxies = loads(
        objects["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"], environ=ENVIRONMENT
    ).replicas
    assert (proxies.answers, proxies.sessions, proxies.spare) == (10, 1000000, 0)


@pytest.mark.system
def test_what_several_proxies_want_together(tmp_path: Path) -> None:
    """Their work is added before it is rounded; what late loops call for is told by each, and not added."""
    programs = find()
    if programs is None:
        pytest.fail(MISSING, pytrace=False)
    cases = [
        # answers, sessions and what is wanted, by proxy; what all of them want
        ([(0, 0, 1), (0, 0, 1)], 1),
        ([(1, 2, 2)] * 6, 2),
        ([(40, 0, 2), (40, 0, 2), (40, 0, 2)], 4),
        ([(120, 0, 4), (0, 0, 1)], 4),
        ([(50, 1000, 3), (50, 1000, 3)], 4),
        ([(40, 0, 6), (40, 0, 6), (40, 0, 6)], 6),
    ]
    asked = query(both()["keda"])
    tests = [
        {
            "interval": "15s",
            "input_series": [
                {
                    "series": f'chainlit_proxy_{name}{{namespace="{space}", pod="p{number}"}}',
                    "values": str(value),
                }
                for number, proxy in enumerate(proxies)
                for name, value in zip(
                    ("backend_turns", "open_sessions", "replicas_wanted"), proxy, strict=True
                )
                for space, value in (("chat", value), ("other", 999))
            ],
            "promql_expr_test": [
                {"expr": asked, "eval_time": "0s", "exp_samples": [{"labels": "{}", "value": wanted}]}
            ],
        }
        for proxies, wanted in cases
    ]
    file = tmp_path / "wanted.yml"
    file.write_text(json.dumps({"tests": tests}), encoding="utf-8")
    done = subprocess.run(
        [programs[0], "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_strings_of_the_autoscalers_stay_strings() -> None:
    """Whatever stands in a value, no object has a number, a key or an object in its place."""
    nasty = "".join(NASTY)
    hpa = scaled("hpa", hpa={"enabled": True, "metric": nasty})[HPA]["spec"]
    assert hpa["metrics"][0]["external"]["metric"] == {"name": nasty}
    keda = scaled("keda", keda={"enabled": True, "server": nasty})[KEDA]["spec"]
    assert keda["triggers"][0]["metadata"]["serverAddress"] == nasty
