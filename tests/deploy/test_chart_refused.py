"""Values that the chart refuses: what breaks the pods, and what nobody who applies it would take."""

import re
from functools import cache
from typing import Any

import pytest

from tests.deploy.helm import ask, chosen

TIMEOUTS: list[Any] = [True, [], {}, "", -1]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"proxy": {"config": {"listen": "0.0.0.0:9000"}}}, r"proxy\.config\.listen is the chart's"),
    (
        {"proxy": {"config": {"admin": {"listen": "0.0.0.0:9900"}}}},
        r"proxy\.config\.admin is the chart's",
    ),
    ({"proxy": {"config": {"backends": []}}}, r"proxy\.config\.backends is the chart's"),
    ({"proxy": {"config": {"discovery": {}}}}, r"proxy\.config\.discovery is the chart's"),
    ({"proxy": {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}}}, "less than minReplicas"),
    ({"chat": {"replicas": 3, "backends": 2}}, "less than chat.replicas"),
    ({"networkPolicy": {"enabled": False}}, r"chat\.forwardedAllowIps has to be chosen"),
    (
        {"chat": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        "a variable is there twice",
    ),
    ({"proxy": {"env": [{"name": "A"}, {"name": "A"}]}}, "a variable is there twice"),
    *(
        ({"proxy": {"config": {"timeouts": {"shutdown": text}}}}, "or durations such as 1m30s")
        for text in ("${SHUTDOWN}", "90", "1h30", "0x10")
    ),
    *(
        ({"proxy": {"config": {"timeouts": {"hand_over": value}}}}, "/proxy/config/timeouts/hand_over")
        for value in TIMEOUTS
    ),
    *(
        ({"proxy": {"config": {name: "x"}}}, f"/proxy/config/{name}': got string")
        for name in ("affinity", "forwarded", "health", "log", "replicas", "sessions", "timeouts")
    ),
    *(
        ({part: {"maxUnavailable": share}}, f"/{part}/maxUnavailable")
        for part in ("proxy", "chat")
        for share in ("0%", "200%")
    ),
    *(({"proxy": {"trusted": [text]}}, "/proxy/trusted/0") for text in ("*", "all", "localhost")),
    ({"clusterDomain": "a..b"}, "/clusterDomain"),
    ({"chat": {"env": [{"name": "PORT", "value": 8000}]}}, "/chat/env/0/value"),
    ({"chat": {"volumes": [{"name": "tmp", "emptyDir": {}}]}}, r"chat\.volumes: one is there twice"),
    ({"proxy": {"volumes": [{"name": "a"}, {"name": "a"}]}}, r"proxy\.volumes: one is there twice"),
    (
        {"chat": {"volumeMounts": [{"name": "a", "mountPath": "/tmp"}]}},
        r"chat\.volumeMounts: one is there twice",
    ),
    *(
        (
            {part: {"podLabels": {f"app.kubernetes.io/{label}": "x"}}},
            rf"{part}\.podLabels: one is there twice",
        )
        for part in ("proxy", "chat")
        for label in ("name", "instance")
    ),
    # What the API server refuses when it has taken half of a release, or what hides the hooks' token.
    ({"chat": {"volumeMounts": [{"name": "a", "mountPath": "/etc/chainlit-hook/"}]}}, "one is there twice"),
    ({"proxy": {"service": {"externalTrafficPolicy": "Local"}}}, "externalTrafficPolicy is for the types"),
    *(
        (
            {"proxy": {"service": {"type": kind, "loadBalancerSourceRanges": ["203.0.113.0/24"]}}},
            "loadBalancerSourceRanges is for the type",
        )
        for kind in ("ClusterIP", "NodePort")
    ),
    (
        {"proxy": {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0"]}}},
        "/proxy/service/loadBalancerSourceRanges/0",
    ),
    ({"chat": {"metrics": {"enabled": True, "port": 8000}}}, "/chat/metrics/port"),
    *(
        ({"serviceMonitor": {"interval": text}}, "/serviceMonitor/interval")
        for text in ("15", "soon", "30s1m", "")
    ),
    (
        {"proxy": {"podAnnotations": {"checksum/config": "x"}}},
        r"proxy\.podAnnotations: one is there twice",
    ),
]


@cache
def answers() -> list[str]:
    """What Helm says of each, asked at once: its start takes longer than the values."""
    return [str(answer.get("error", "")) for answer in ask([chosen(values) for values, _ in REFUSED])]


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=lambda number: str(REFUSED[number][0]))
def test_values_that_break_the_pods_are_refused(number: int) -> None:
    """Ports, probes, policies and hooks are made for the chart's own; contradictions are told."""
    assert re.search(REFUSED[number][1], answers()[number])
