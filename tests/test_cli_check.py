"""`check` says whether a file is right, and prints what it is asked to; `schema` is for editors."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.config import loads
from proxy.config.schema import schema

BACKENDS = "backends: [http://127.0.0.1:8001, http://127.0.0.1:8002]\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file to write a configuration to."""
    return tmp_path / "proxy.yaml"


def _check(config: Path, text: str, *args: str) -> Result:
    config.write_text(text)
    return CliRunner().invoke(main, ["check", str(config), *args])


@pytest.mark.parametrize(
    ("text", "args", "told"),
    [
        (BACKENDS, (), "is valid: 2 backends, listens on 0.0.0.0:8000"),
        ("backends: [http://a:1]\nlisten: ['127.0.0.1:80', 'unix:/run/a']", (),
         "is valid: 1 backend, listens on 127.0.0.1:80, unix:/run/a"),
        (BACKENDS + "discovery: {file: /dev/null}", (),
         "is valid: 2 backends and those of discovery.file, listens on 0.0.0.0:8000"),
        ("discovery: {file: /dev/null}", (), "is valid: backends of discovery.file, listens on 0.0.0.0:8000"),
        ("", ("--for", "run"), "is valid for run: 2 replicas, listens on 127.0.0.1:8000"),
        ("replicas: {count: 1}", ("--for", "run"), "is valid for run: 1 replica, listens on 127.0.0.1:8000"),
        ("replicas: {count: 1..4}", ("--for", "run"),
         "is valid for run: 1..4 replicas, listens on 127.0.0.1:8000"),
    ],
)  # fmt: skip
def test_a_good_file_is_said_to_be(config: Path, text: str, args: tuple[str, ...], told: str) -> None:
    """In one line on standard error; nothing is printed that nobody asked for."""
    result = _check(config, text, *args)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{config} {told}\n"


def test_standard_input_is_called_so() -> None:
    """Not by the dash that stands for it."""
    result = CliRunner().invoke(main, ["check", "-"], input=BACKENDS)
    assert (result.exit_code, result.stderr.partition(" is valid")[0]) == (0, "standard input")


def test_print_has_every_key_as_it_takes_effect(config: Path) -> None:
    """On standard output, to be read again; secrets are masked."""
    result = _check(config, "admin: {token: hunter2}\naffinity: {secret: hunter3}\n" + BACKENDS, "--print")
    assert result.exit_code == 0
    assert "is valid" in result.stderr
    shown = yaml.safe_load(result.stdout)
    assert shown["timeouts"]["tunnel_idle"] == 90
    assert shown["admin"]["token"] == "***"
    assert shown["sessions"]["shared"] is False
    assert "hunter" not in result.output


def test_changed_has_what_differs_from_the_defaults(config: Path) -> None:
    """A key that was written with its default is none, and of backends that which was written."""
    result = _check(
        config,
        "listen: 0.0.0.0:8000\nhealth: {interval: 30s, timeout: 2}\nadmin: {token: hunter2}\n"
        "backends: [http://a:1, {url: http://b:2, name: b, weight: 1}]\nlog: {level: INFO}\n",
        "--changed",
    )
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout) == {
        "admin": {"token": "***"},
        "backends": [{"url": "http://a:1"}, {"url": "http://b:2", "name": "b", "weight": 1}],
        "health": {"interval": 30},
    }
    assert loads(result.stdout.replace('"***"', "hunter2")) == loads(config.read_text())


def test_changed_goes_by_the_defaults_of_the_command(config: Path) -> None:
    """`run` has others, and they are no change."""
    result = _check(config, "log: {access: true}", "--for", "run", "--changed")
    assert yaml.safe_load(result.stdout) == {"log": {"access": True}}
    assert yaml.safe_load(_check(config, "", "--for", "run", "--changed").stdout) == {}


def test_quiet_says_nothing_of_a_good_file(config: Path) -> None:
    """But what it is asked for is printed."""
    text = "discovery: {file: nowhere.yaml}"
    assert _check(config, text, "--quiet").output == ""
    assert _check(config, text, "--quiet", "--changed").output.startswith("discovery:")
    assert _check(config, text, "--print", "--changed").exit_code == 2


def test_a_file_of_run_is_told_how_it_is_checked(config: Path) -> None:
    """It has no backends, which `serve` needs: one line says both."""
    result = _check(config, "log: {format: json}")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert (
        "or set discovery; a file for `run`, which makes its own backends, is checked with --for run"
        in result.stderr
    )


def test_a_list_of_backends_that_is_not_there_yet_is_told(config: Path) -> None:
    """It may come later, so that it is no mistake."""
    result = _check(config, "discovery: {file: more.yaml}")
    assert result.exit_code == 0
    warning = (
        f"discovery.file: {config.parent}/more.yaml does not exist (yet): until then it names no backends"
    )
    assert result.stderr.splitlines()[0] == warning


def test_check_warns_of_names_that_may_be_public(config: Path) -> None:
    """A name that may be looked up as a stranger's is told with its key; the file is right all the same."""
    result = _check(
        config, "backends: [{url: 'http://chat-0.chat:8000'}, {url: 'http://chat-0.chat.:8000', name: b}]"
    )
    assert result.exit_code == 0
    told, verdict = result.stderr.splitlines()
    assert "is valid: 2 backends" in verdict
    assert told.startswith("backends[0].url: chat-0.chat is a relative name")


def test_the_schema_is_printed() -> None:
    """As JSON, on standard output."""
    result = CliRunner().invoke(main, ["schema"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, schema())


def test_mistakes_on_standard_input_name_it() -> None:
    """As a good file from there is named, and not by the `-` that stands for it."""
    result = CliRunner().invoke(main, ["check", "-"], input="backends: [http://127.0.0.1:1]\nlisten: 8000\n")
    assert (result.exit_code, result.stderr.split(" must")[0]) == (2, "standard input:2: listen:")
