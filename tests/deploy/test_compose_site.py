"""The whole of compose.yaml, started by `make images`: a browser in front, and things that break behind.

Grafana is left out where its image cannot be pulled: Debian does not have it.
"""

import json
import os
import time
from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser

from tests.browser.tab import Tab
from tests.deploy import stand_ins
from tests.deploy.compose_site import HEALTHY, Site
from tests.deploy.engine import Engine
from tests.deploy.people import all_are_remembered, people, session_of
from tests.deploy.test_files import queries, rules
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif("IMAGES" not in os.environ, reason="builds images, see `make images`"),
    pytest.mark.system,
    pytest.mark.timeout(1800),
]

# What a site has no data for that serves without TLS and makes no error.
WITHOUT = ("certificate_expiry", 'code=~"5xx|aborted"')


@pytest.fixture(scope="module")
def site(
    engine: Engine, proxy_image: str, chat_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The site, not started yet; gone with its volumes and networks at the end."""
    images = {
        "chainlit-proxy": proxy_image,
        "chainlit-proxy-chat": chat_image,
        stand_ins.VALKEY: stand_ins.other(engine, stand_ins.VALKEY, stand_ins.OF_VALKEY),
        stand_ins.PROMETHEUS: stand_ins.other(engine, stand_ins.PROMETHEUS, stand_ins.OF_PROMETHEUS),
    }
    if stand_ins.have(engine, stand_ins.GRAFANA):
        images[stand_ins.GRAFANA] = stand_ins.GRAFANA
    else:
        print(f"not started: {stand_ins.GRAFANA}, which is not here, cannot be pulled and is not in Debian")
    site = Site(engine, images, tmp_path_factory.mktemp("site"))
    try:
        yield site
    finally:
        print(site.compose("logs", "--no-color", "--tail", "60"))
        site.compose("down", "--volumes", "--timeout", "40")


@pytest.fixture
def tabs(site: Site, chromium: Browser) -> Iterator[list[Tab]]:
    """Three chats on a site that is whole, each with its own cookies and a name that it was told.

    What the test before has stopped, or left dead when it failed, is started again.
    """
    site.compose("up", "--detach")
    site.wait_well()
    with people(chromium, site.url) as tabs:
        yield tabs


def test_an_instance_is_killed_in_the_middle_of_an_answer(site: Site, tabs: list[Tab]) -> None:
    """Its chat goes on elsewhere with all that it knew, the others notice nothing, and it comes back."""
    tab = tabs[0]
    homes = [home_of(site, each) for each in tabs]
    before = tab.messages.count()
    tab.send("tell me more")
    tab.begun(before)
    victim = homes[0]
    killed = time.time()  # from before the command, which may return when the page is connected anew already
    site.engine("kill", "--signal", "KILL", site.container(victim))
    print(f"killed {victim} of {homes}; connected anew after {tab.wait_connected(killed):.2f} s")
    all_are_remembered(tabs)
    others = [each for each, home in zip(tabs, homes, strict=True) if home != victim]
    assert [other.was_closed(killed) for other in others] == [False] * len(others)
    # `restart: unless-stopped` does not start again what an operator killed; the test does.
    site.compose("up", "--detach", "--no-deps", victim)
    site.wait_well()
    all_are_remembered(tabs)


def home_of(site: Site, tab: Tab) -> str:
    """The service whose instance holds a chat: the session of its page, looked up at the proxy."""
    return str(json.loads(site.get(f"/api/where/{session_of(tab)}"))["backend"])


def test_an_instance_that_is_stopped_hands_over(site: Site, tabs: list[Tab]) -> None:
    """It ends within its grace with status 0, its chat goes on elsewhere, and nothing is forgotten."""
    victim = home_of(site, tabs[1])
    began = time.time()
    site.compose("stop", victim)
    took = time.time() - began
    assert took < int(str(site.services[victim]["stop_grace_period"]).rstrip("s"))
    assert site.state(victim)["ExitCode"] == 0, site.told(victim)
    all_are_remembered(tabs)


def test_the_proxy_is_replaced(site: Site, tabs: list[Tab]) -> None:
    """It leaves within its grace with status 0; every chat is at its instance again with the next one."""
    homes = [home_of(site, tab) for tab in tabs]
    began = time.time()
    site.compose("stop", "proxy")
    took = time.time() - began
    assert site.state("proxy")["ExitCode"] == 0, site.told("proxy")
    assert took < int(str(site.services["proxy"]["stop_grace_period"]).rstrip("s"))
    site.compose("rm", "--force", "proxy")
    site.compose("up", "--detach", "--no-deps", "proxy")
    site.wait_well()
    for tab in tabs:
        tab.wait_connected(began)
    all_are_remembered(tabs)
    assert [home_of(site, tab) for tab in tabs] == homes
    print(f"the proxy stopped in {took:.1f} s")


def outages(site: Site, service: str) -> int:
    """How often an instance has missed the store."""
    return site.compose("logs", service).count("the store is down")


def has_missed_it(site: Site, service: str, before: int) -> bool:
    """Whether that has happened again."""
    return outages(site, service) > before


def has_its_store(site: Site, service: str) -> bool:
    """Whether an instance that has missed the store has it again, and has written what was said meanwhile."""
    log = site.compose("logs", service)
    return log.count("the store is down") == log.count("the store is back")


def test_valkey_is_lost_and_comes_back(site: Site, tabs: list[Tab]) -> None:
    """Without it every chat goes on where it is; with it again a chat survives its instance as before."""
    before = {home: outages(site, home) for home in {home_of(site, tab) for tab in tabs}}
    site.engine("kill", "--signal", "KILL", site.container("valkey"))
    all_are_remembered(tabs)
    for home, number in before.items():  # a session is written when its answer has been read already
        wait_until(partial(has_missed_it, site, home, number), 30, partial(site.told, home))
    site.compose("up", "--detach", "--no-deps", "valkey")
    site.wait_well()
    for service in HEALTHY:
        wait_until(partial(has_its_store, site, service), 30, partial(site.told, service))
    all_are_remembered(tabs)
    victim = home_of(site, tabs[2])
    killed = time.time()
    site.engine("kill", "--signal", "KILL", site.container(victim))
    tabs[2].wait_connected(killed)
    all_are_remembered(tabs)


def test_prometheus_scrapes_and_every_panel_has_data(site: Site, tabs: list[Tab]) -> None:
    """It finds the proxy by the name of its service, loads every alert, and answers every panel."""

    def up() -> bool:
        found = site.ask_prometheus("query", query='up{job="chainlit-proxy"}')["result"]
        return [one["value"][1] for one in found] == ["1"]

    wait_until(up, 60, lambda: site.told("prometheus"))
    loaded = [rule for group in site.ask_prometheus("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in loaded} == {rule["alert"] for rule in rules()}
    lacking = {query for query in queries() if not any(name in query for name in WITHOUT)}

    def answered() -> bool:
        lacking.difference_update(
            [query for query in lacking if site.ask_prometheus("query", query=query)["result"]]
        )
        return not lacking

    wait_until(answered, 120, lambda: f"no data: {lacking}")
