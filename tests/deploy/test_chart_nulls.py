"""What the chart says: which value it needs, where one is taken away by `null`, and what comes next."""

import re
from typing import Any

import pytest
import yaml

from tests.deploy.helm import ask, chosen, render, render_all
from tests.deploy.test_chart import VALUES, leaves
from tests.deploy.test_kubernetes import PROXY, charts, keyed

# What is passed on to Kubernetes as it is, and may be missing there as well.
PASSED_ON = (
    *(
        "args",
        "envFrom",
        "volumes",
        "volumeMounts",
        "podLabels",
        "podAnnotations",
        "nodeSelector",
        "tolerations",
    ),
    *("affinity", "priorityClassName", "resources", "annotations", "loadBalancerSourceRanges", "appProtocol"),
    *("externalTrafficPolicy", "imagePullSecrets", "egress"),
)
PATHS = sorted(
    {path[:end] for name, _ in leaves(VALUES) for path in [tuple(name.split("."))] for end in range(1, 9)}
)
OWN_DEFAULT = {("proxy", "trusted"), ("chat", "backends")}


def without(path: tuple[str, ...]) -> dict[str, Any]:
    """Values that take one away."""
    values: Any = None
    for key in reversed(path):
        values = {key: values}
    return dict(values)


def test_what_the_chart_needs_is_said() -> None:
    """No value that is taken away ends in an error of the templates: the message names the value."""
    needed = [path for path in PATHS if path[-1] not in PASSED_ON and path not in OWN_DEFAULT]
    assert len(needed) > 50
    assert {("chat", "autoscaling"), ("proxy", "service", "port"), ("networkPolicy", "dnsPorts")} <= set(
        needed
    )
    refused = refusals([without(path) for path in needed])
    for path, told in zip(needed, refused, strict=True):
        assert re.search(rf"at '{'/'.join(('', *path[:-1]))}': missing property '{path[-1]}'", told), (
            path,
            told,
        )


def refusals(several: list[dict[str, Any]]) -> list[str]:
    """What Helm says of each of several values; "" of those that it takes."""
    answers = ask([chosen(values) if values.get("proxy", values) else values for values in several])
    return [str(answer.get("error", "")) for answer in answers]


def test_what_an_installation_is_told() -> None:
    """How to try whether policies hold, by a name that cannot fall through; what it means without them."""
    trusted = "10.244.0.0/16"
    policies, none = ask(
        [
            chosen({"clusterDomain": "cluster.example", "chat": {"healthPath": "/chat/health"}}),
            chosen({"networkPolicy": {"enabled": False}, "chat": {"forwardedAllowIps": trusted}}),
        ]
    )
    assert "http://chat-0.chat.chat.svc.cluster.example.:8000/chat/health" in policies["notes"]
    assert "set chat.forwardedAllowIps" in policies["notes"]
    assert f"every pod of the cluster that is in {trusted} can be any client" in none["notes"]


def test_what_is_passed_on_may_be_missing() -> None:
    """It renders without them all."""
    values: dict[str, Any] = {"proxy": {"trusted": [], "service": {}}, "chat": {}, "networkPolicy": {}}
    for path in PATHS:
        if path[-1] in PASSED_ON:
            place = values
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = None
    assert render_all([values])[0]


@pytest.mark.parametrize(
    "config",
    [
        dict.fromkeys(("affinity", "forwarded", "health", "log", "replicas", "sessions", "timeouts")),
        {"timeouts": {"shutdown": None, "hand_over": None}, "affinity": {"directory": {"redis": None}}},
    ],
)
def test_what_is_nothing_in_the_configuration_takes_nothing_away(config: dict[str, Any]) -> None:
    """As where all lines of a section are comments: the chart's own stay, and so does the time to end."""
    objects, plain = keyed(render(proxy={"config": config})), charts()["default"]
    texts = [each["ConfigMap", "chainlit-proxy"]["data"]["proxy.yaml"] for each in (objects, plain)]
    assert yaml.safe_load(texts[0]) == yaml.safe_load(texts[1])
    assert objects[PROXY]["spec"] == plain[PROXY]["spec"]
