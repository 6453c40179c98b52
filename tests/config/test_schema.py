"""The JSON schema allows what `load` allows, and underlines what a pattern can tell."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from proxy.config import Config, ConfigError, dump, loads
from proxy.config.fields import KEYS, Key
from proxy.config.schema import schema

ROOT = Path(__file__).parents[2]
SCHEMA = schema()
VALIDATOR = Draft7Validator(SCHEMA)
BACKEND = "backends: [http://127.0.0.1:8001]\n"


def _told(text: str) -> list[str]:
    """What an editor underlines in a text; it reads YAML 1.2, where yes is text."""
    return [error.json_path for error in VALIDATOR.iter_errors(yaml.load(text, Loader=_Editor))]


class _Editor(yaml.SafeLoader):
    """Reads as an editor does."""


_Editor.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def test_it_is_a_schema_that_every_program_reads() -> None:
    """Of draft 7, and plain JSON."""
    Draft7Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: ".".join(key.path))
def test_every_key_is_told_where_it_stands(key: Key) -> None:
    """With the words of the reference."""
    place: Any = SCHEMA
    for name in key.path:
        place = place.get("items", place)
        if "properties" not in place:
            place = next(kind for kind in place["anyOf"] if "properties" in kind)
        place = place["properties"][name]
    assert place["description"].startswith(key.description)


@pytest.mark.parametrize(
    "text",
    [
        "",
        (ROOT / "config.example.yaml").read_text(encoding="utf-8"),
        dump(loads(BACKEND)),
        BACKEND,
        "backends: [{url: 'https://a:1', weight: 2, tls: {verify: no}}, 'http+unix:///run/a']",
        "backends:\nhealth:\n",
        "listen: [':8000', 'unix:/run/a']",
        "health:\n  interval: 30s\n  timeout: ${TIMEOUT}\n  status: 204\n  evict_after: 0.5\n",
        "health: {status: [200-299, 304]}",
        "limits: {body: 512MiB, head: 32k, inspect: 1 MB, burst: 5}",
        "timeouts: {shutdown: 1m30s, drain: 0}",
        "log:\n  level: INFO\n  access: off\n  format: ${FORMAT:-json}\n",
        "sessions: {shared: yes}",
        "sessions: {shared: auto}",
        "sessions: {shared: false}",
        "affinity: {locate: Always, secret: [a, b], roots: /chat}",
        "admin: {token: 12345}",
        "replicas: {count: 2..8}",
        "replicas: {count: 4}",
        "tls: {min_version: 1.2, certificates: [{cert: a, key: b}]}",
        "discovery:\n  dns:\n    name: a.b.\n    records: SRV\n  docker:\n    port: ${PORT}\n",
        "forwarded: {trusted: [10.0.0.0/8], hops: 2}",
    ],
)
def test_what_may_be_written_is_not_underlined(text: str) -> None:
    """Units, variables, words in any case, one value in place of a list, sections without content."""
    loads(text, environ={"TIMEOUT": "5s", "PORT": "8000"})
    assert _told(text or "{}") == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("listn: a", "$"),
        ("health: {intervall: 5}", "$.health"),
        ("health: {interval: 30 lightyears}", "$.health.interval"),
        ("health: {interval: 0}", "$.health.interval"),
        ("health: {type: https}", "$.health.type"),
        ("limits: {body: 5x}", "$.limits.body"),
        ("limits: {head: 5}", "$.limits.head"),
        ("limits: {burst: 5k}", "$.limits.burst"),
        ("log: {access: perhaps}", "$.log.access"),
        ("log: {level: loud}", "$.log.level"),
        ("backends: {a: 'http://a:1'}", "$.backends"),
        ("backends: [{name: a}]", "$.backends"),
        ("replicas: {count: 0}", "$.replicas.count"),
        ("affinity: {hold: 20}", "$.affinity.hold"),
        ("balance: []", "$.balance"),
        ("tls: {min_version: 1.1}", "$.tls.min_version"),
    ],
)
def test_what_is_wrong_is_underlined_as_it_is_refused(text: str, path: str) -> None:
    """Where it stands."""
    with pytest.raises(ConfigError):
        loads(text)
    assert any(told.startswith(path) for told in _told(text))


def test_the_defaults_are_those_of_the_models() -> None:
    """An editor that fills them in changes nothing."""
    found = {
        name: {below: told["default"] for below, told in section["properties"].items() if "default" in told}
        for name, section in SCHEMA["properties"].items()
        if "properties" in section
    }
    assert loads(json.dumps(found)) == Config()


def test_the_example_names_the_schema() -> None:
    """The server of editors for YAML finds it by a line of the file."""
    first = (ROOT / "config.example.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=proxy.schema.json"
