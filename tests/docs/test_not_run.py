"""What can be checked of commands that cannot be run here: names, and the words that are for us."""

import re
import shlex
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.deploy.helm import render
from tests.deploy.test_kubernetes import base
from tests.docs.not_run import NOT_RUN
from tests.docs.pages import ROOT
from tests.docs.test_commands import parse

COMPOSE = [line for line in NOT_RUN if line.startswith("docker compose ")]
KUBECTL = [line for line in NOT_RUN if line.startswith("kubectl ")]
HELM = [line for line in NOT_RUN if line.startswith("helm ")]
KINDS = {"deploy": "Deployment", "statefulset": "StatefulSet"}
LATER = {"chat-d"}  # a service that the reader has just added
# Those that the pages use, of the reference of `docker compose`, with the options that have a value.
COMPOSE_OPTIONS = {
    "up": {"--build", "--detach", "--no-deps"},
    "exec": set[str](),
    "build": set[str](),
    "stop": set[str](),
    "kill": {"--signal"},
}


@pytest.mark.parametrize("line", COMPOSE)
def test_compose_is_asked_for_what_there_is(line: str) -> None:
    """The service is in `compose.yaml`, and what is run in it is a command of ours."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    verb, *words = shlex.split(line)[2:]
    if verb == "exec":
        service, program, *rest = words
        assert service in services
        assert program == "chainlit-proxy"
        parse(rest)
        named = {word for word in rest if word.startswith("chat-")}
    else:
        assert {word for word in words if word.startswith("--")} <= COMPOSE_OPTIONS[verb]
        named = {word for word in words if not word.startswith("--")} - {"HUP"}
    assert named <= services.keys() | LATER


@pytest.mark.parametrize("line", KUBECTL)
def test_kubectl_is_asked_for_what_there_is(line: str) -> None:
    """Folders and objects exist, and what is run in a pod is a command of ours."""
    words = shlex.split(line)
    for kind, name in re.findall(r"\b(deploy|statefulset)/([\w-]+)(?!/)\b", line):
        if kind != "deploy" or not name.startswith("kubernetes"):
            assert (KINDS[kind], name) in base()
    if "-k" in words:
        folder = words[words.index("-k") + 1]
        assert folder == "." or (ROOT / folder / "kustomization.yaml").exists()
    if "sh" in words:
        program, *rest = shlex.split(words[-1])
        assert program == "chainlit-proxy"
        parse(rest)


def test_the_secret_has_what_the_pods_want() -> None:
    """Names and keys are those that the manifests refer to, all of them; the chart may want one more."""
    lines = [shlex.split(line) for line in KUBECTL if "create secret" in line]
    given = {
        (line[line.index("generic") + 1], key)
        for line in lines
        for key in re.findall(r"--from-literal=([\w-]+)=", " ".join(line))
    }
    chart = render(chat={"healthSecret": "chainlit-health"}, proxy={"healthSecret": "chainlit-health"})
    assert {pair for pair in given if pair[0] == "chainlit"} == set(wanted(list(base().values())))
    assert given == set(wanted(chart))


def wanted(value: Any) -> list[tuple[str, str]]:
    """Every key of a Secret that is referred to, however deep."""
    if isinstance(value, list):
        return [pair for item in value for pair in wanted(item)]
    if not isinstance(value, dict):
        return []
    if reference := value.get("secretKeyRef"):
        return [(reference["name"], reference["key"])]
    return [pair for item in value.values() for pair in wanted(item)]


@pytest.mark.parametrize("line", HELM)
def test_helm_accepts_the_values(line: str) -> None:
    """The chart is where the line says, and renders with what it sets."""
    words = shlex.split(line)
    assert (ROOT / words[words.index("site") + 1] / "Chart.yaml").exists()
    # A chart that is newer than the release would be without the defaults of its new values.
    assert "--reuse-values" not in words
    values: dict[str, Any] = {}
    for setting in [word for before, word in pairwise(words) if before == "--set"]:
        path, _, value = setting.partition("=")
        *sections, key = path.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        # Helm writes a list as {a,b}.
        place[key] = value[1:-1].split(",") if value.startswith("{") else yaml.safe_load(value)
    assert values
    assert render(**values)


def test_the_images_of_the_first_look_are_those_of_the_base() -> None:
    """What is loaded into the nodes is what the manifests ask for."""
    (line,) = [line for line in NOT_RUN if line.startswith("kind load ")]
    pods = [one["spec"]["template"]["spec"] for one in base().values() if "template" in one.get("spec", {})]
    assert {one["containers"][0]["image"] for one in pods} == set(shlex.split(line)[3:])
