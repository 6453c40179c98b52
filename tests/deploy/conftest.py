"""The engine and the images of one run of `make images`; everything is removed at its end."""

import os
from collections.abc import Iterator

import pytest

from tests.deploy import stand_ins
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
