"""Three people who chat with the example in browsers of their own, while what is deployed comes and goes."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser

from tests.browser.tab import Tab

NAMES = ("PersonA", "PersonB", "PersonC")


@contextmanager
def people(chromium: Browser, url: str) -> Iterator[list[Tab]]:
    """Their pages, each with its own cookies; they have said who they are."""
    contexts = [chromium.new_context(viewport={"width": 1000, "height": 900}) for _ in NAMES]
    try:
        tabs = [Tab(context, f"{url}/") for context in contexts]
        for name, tab in zip(NAMES, tabs, strict=True):
            assert name in tab.say(f"my name is {name}")
        yield tabs
    finally:  # or they would chat beside those of the next test
        for context in contexts:
            context.close()


def all_are_remembered(tabs: list[Tab]) -> None:
    """Each is known to whoever answers, on the page that was opened."""
    for name, tab in zip(NAMES, tabs, strict=True):
        assert f"You are {name}." in tab.say("who am I?")
        assert not tab.reloaded


def session_of(tab: Tab) -> str:
    """The id of its session, which Chainlit's page keeps in a cookie."""
    cookies = {cookie["name"]: cookie["value"] for cookie in tab.page.context.cookies()}
    return str(cookies["X-Chainlit-Session-id"])
