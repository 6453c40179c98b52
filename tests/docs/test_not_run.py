"""What can be checked of commands that cannot be run here: names, and the words that are for us."""

import shlex

import pytest
import yaml

from tests.docs.not_run import NOT_RUN
from tests.docs.pages import ROOT
from tests.docs.test_commands import parse

COMPOSE = [line for line in NOT_RUN if line.startswith("docker compose ")]
LATER = {"chat-d"}  # a service that the reader has just added
# Those that the pages use, of the reference of `docker compose`, with the options that have a value.
COMPOSE_OPTIONS = {
    "up": {"--build", "--detach", "--no-deps"},
    "exec": set[str](),
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
