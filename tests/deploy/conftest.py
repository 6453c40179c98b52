"""The engine, images, browser and API server of tests of what is deployed; all are removed at the end."""

import os
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import FLAGS, MISSING, find
from tests.deploy import api_server, stand_ins
from tests.deploy.engine import Engine
from tests.deploy.own_engine import running


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The machine's engine, or one of our own that leaves nothing behind."""
    try:
        with running() as engine:
            yield engine
    except FileNotFoundError as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def proxy_image(engine: Engine) -> str:
    """The image for `serve`; the build that the variable BUILD names."""
    stand_ins.python(engine)
    words = ("--build-arg", f"BUILD={build}") if (build := os.environ.get("BUILD")) else ()
    return engine.build("proxy", *words)


@pytest.fixture(scope="session")
def chat_image(engine: Engine) -> str:
    """The image of the example."""
    stand_ins.python(engine)
    return engine.build("chat")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, with a fresh profile."""
    path = find()
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[api_server.ApiServer]:
    """An API server for all tests of a module, each of which has a namespace of its own."""
    programs = api_server.assets()
    assert programs is not None
    with api_server.running(programs, tmp_path_factory.mktemp("kubernetes")) as server:
        server.kubectl("create", "namespace", "monitoring")
        yield server


@pytest.fixture
def namespace(server: api_server.ApiServer, request: pytest.FixtureRequest) -> str:
    """That of one test."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    server.kubectl("create", "namespace", name)
    return name
