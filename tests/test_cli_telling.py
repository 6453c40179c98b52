"""What `run` and `replica` tell their instances of messages that wait."""

import json
import os
from pathlib import Path

import pytest

from proxy.cli.reading import can_limit
from proxy.cli.telling import not_for_the_app, tell_replicas
from proxy.config import ConfigError, loads
from proxy.replicas.launch import SHARING
from proxy.sessions import SharingSettings
from tests.test_cli import call


def test_instances_are_told_how_many_messages_they_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their environment, as the rest of what concerns sharing."""
    monkeypatch.setenv(SHARING, "")
    config = loads("{balance: {most_answers: 3, queue: 7}, sessions: {shared: true}}")
    told = tell_replicas(config, "sqlite:///own.db")
    assert (told.store, told.most_answers, told.most_waiting) == ("sqlite:///own.db", 3, 7)
    assert SharingSettings.from_text(os.environ[SHARING]) == told
    assert SharingSettings.from_text(json.dumps({"store": "sqlite:///a.db"})).most_answers == 0


def test_messages_wait_only_where_sessions_are_shared(tmp_path: Path) -> None:
    """What has them wait is a part of sharing: without it the limit would be none."""
    text = "{balance: {most_answers: 3}, sessions: {shared: false}}"
    file = tmp_path / "run.yaml"
    file.write_text(text)
    result = call("run", "app.py", "-c", str(file))
    assert result.exit_code == 2
    assert "balance.most_answers: must be 0 where sessions.shared is false" in result.stderr
    with pytest.raises(ConfigError):
        can_limit(loads(text), None)
    assert can_limit(loads("sessions: {shared: false}"), None).balance.most_answers == 0


def test_the_option_is_checked() -> None:
    """As the key of the file."""
    result = call("replica", "app.py", "--sessions", "sqlite:///tmp/s.db", "--most-answers", "-1")
    assert result.exit_code == 2
    assert "balance.most_answers: must be a whole number, 0 or greater (got -1)" in result.stderr


def test_what_is_not_for_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that secrets are made of, by name; stores' urls and what is Chainlit's stay the app's."""
    text = """
    affinity: {secret: ["${PINS}", "${CHAINLIT_AUTH_SECRET}"], directory: {redis: "${REDIS_URL}"}}
    admin: {token: "pre-${ADMIN}"}
    log: {level: "${LEVEL}"}
    """
    given = {
        "PINS": "hunter1",
        "CHAINLIT_AUTH_SECRET": "hunter2",
        "REDIS_URL": "redis://:hunter3@127.0.0.1",
        "ADMIN": "dev",
        "LEVEL": "debug",
    }
    secrets: set[str] = set()
    loads(text, environ=given, secret_variables=secrets)
    assert secrets == {"PINS", "CHAINLIT_AUTH_SECRET", "ADMIN"}
    for name, value in {**given, "APP_ENV": "dev", "CHAINLIT_PROXY_TOKEN": "hunter4"}.items():
        monkeypatch.setenv(name, value)
    assert not_for_the_app(secrets) == {"PINS", "ADMIN", "CHAINLIT_PROXY_TOKEN"}
