"""`health.secret` in the chart: from a Secret, to the instances first, and off by default."""

from typing import Any

import pytest
import yaml

from proxy.config import loads
from tests.deploy.helm import ValuesError, render
from tests.deploy.schemas import mistakes
from tests.deploy.test_chart import NASTY
from tests.deploy.test_kubernetes import CHAT, ENVIRONMENT, PROXY, Objects, charts, container, keyed

CONFIG = ("ConfigMap", "chainlit-proxy")
VARIABLES = {CHAT: "CHAINLIT_PROXY_HEALTH_SECRET", PROXY: "HEALTH_SECRET"}


def named(objects: Objects, key: tuple[str, str]) -> str | None:
    """The Secret that a container has its variable from."""
    entries = {entry["name"]: entry for entry in container(objects[key])["env"]}
    if VARIABLES[key] not in entries:
        return None
    reference = entries[VARIABLES[key]]["valueFrom"]["secretKeyRef"]
    assert reference["key"] == "health-secret"
    return str(reference["name"])


def demanded(objects: Objects) -> str | None:
    """The secret that the proxies want to be proved."""
    text = objects[CONFIG]["data"]["proxy.yaml"]
    secret = loads(text, environ={**ENVIRONMENT, "HEALTH_SECRET": "some-health-secret"}).health.secret
    return None if secret is None else secret[0].get_secret_value()


def test_nothing_is_to_be_proved_by_default() -> None:
    """Neither has the variable, and the proxies believe who answers."""
    for objects in charts().values():
        assert [named(objects, key) for key in (CHAT, PROXY)] == [None, None]
        assert demanded(objects) is None


def test_both_have_the_secret_that_is_named() -> None:
    """By reference, so that neither the release nor the configuration holds it."""
    objects = keyed(
        render(chat={"healthSecret": "chainlit-health"}, proxy={"healthSecret": "chainlit-health"})
    )
    assert [named(objects, key) for key in (CHAT, PROXY)] == ["chainlit-health", "chainlit-health"]
    assert demanded(objects) == "some-health-secret"
    assert [told for one in objects.values() for told in mistakes(one)] == []


def test_the_instances_have_it_first() -> None:
    """That step changes nothing at the proxies; the other way round all pods would be down."""
    objects = keyed(render(chat={"healthSecret": "chainlit-health"}))
    assert (named(objects, CHAT), named(objects, PROXY), demanded(objects)) == ("chainlit-health", None, None)
    assert objects[PROXY] == charts()["default"][PROXY]
    with pytest.raises(ValuesError, match=r"proxy\.healthSecret needs chat\.healthSecret"):
        render(proxy={"healthSecret": "chainlit-health"})


@pytest.mark.parametrize("secret", ["${HEALTH_SECRET}", ["new", "old"]])
def test_proxies_alone_cannot_ask_for_it(secret: object) -> None:
    """Pods that do not know it would all be down; with it in theirs, the proxies may know several."""
    config = {"health": {"secret": secret}}
    with pytest.raises(
        ValuesError, match=r"proxy\.config\.health\.secret needs pods that know it: .*chat\.healthSecret"
    ):
        render(proxy={"config": config})
    variable = {"name": VARIABLES[CHAT], "value": "new"}
    both = {"healthSecret": "chainlit-health"}
    known: list[dict[str, Any]] = [
        both,
        {"env": [variable]},
        {"envFrom": [{"secretRef": {"name": "health"}}]},
    ]
    for chat in known:
        objects = keyed(render(chat=chat, proxy={"config": config} | (both if chat is both else {})))
        told = yaml.safe_load(objects[CONFIG]["data"]["proxy.yaml"])
        assert told["health"]["secret"] == secret


def test_the_name_of_the_secret_stays_a_string() -> None:
    """Whatever stands in it."""
    nasty = "".join(NASTY)
    objects = keyed(render(chat={"healthSecret": nasty}, proxy={"healthSecret": nasty}))
    assert [named(objects, key) for key in (CHAT, PROXY)] == [nasty, nasty]
