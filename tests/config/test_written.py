"""In how many ways a value may be written, and what is said of the rest."""

import os
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ConfigError, dump, load, loads
from proxy.config.fields import KEYS, Key
from proxy.units import Unit

BACKEND = "backends: [http://127.0.0.1:8001]\n"
COUNTED = [key for key in KEYS.values() if key.unit]


def _at(config: Any, key: Key) -> Any:
    for name in key.path:
        config = getattr(config, name)
    return config


def _file(key: Key, value: str) -> str:
    return f"{': {'.join(key.path)}: {value}{'}' * (len(key.path) - 1)}"


@pytest.mark.parametrize("key", COUNTED, ids=lambda key: ".".join(key.path))
def test_every_number_of_seconds_or_bytes_may_have_its_unit(key: Key) -> None:
    """Plain, with a unit, in quotes and out of a variable it is the same number, and is printed as one."""
    duration, seconds = ("19s", 19) if key.path[-1] in {"hold", "shortest"} else ("2m", 120)
    text, number = (duration, seconds) if key.unit is Unit.SECONDS else ("64k", 65536)
    for written in (text, f"'{text}'", "${HOW_MUCH}", str(number)):
        config = loads(_file(key, written), environ={"HOW_MUCH": text})
        assert _at(config, key) == number
    assert f"{key.path[-1]}: {number}\n" in dump(config)


@pytest.mark.parametrize("key", COUNTED, ids=lambda key: ".".join(key.path))
def test_another_unit_is_told_with_what_there_is(key: Key) -> None:
    """The message shows how it is written."""
    with pytest.raises(ConfigError) as caught:
        loads(_file(key, "30 lightyears"))
    (problem,) = caught.value.problems
    assert key.unit
    assert problem.message.startswith(f"must be {key.unit.value}")
    assert problem.message.endswith('(got "30 lightyears")')


def test_every_key_in_seconds_or_bytes_is_one() -> None:
    """What its description counts in seconds or bytes takes a unit, and nothing else does."""
    for key in KEYS.values():
        first = key.description.partition(" ")[0]
        counts = {"Seconds": Unit.SECONDS, "Bytes": Unit.BYTES}.get(first)
        assert key.unit is counts, key.path


@pytest.mark.parametrize(
    "key", [key for key in KEYS.values() if key.is_flag], ids=lambda key: ".".join(key.path)
)
def test_true_and_false_have_the_same_words_everywhere(key: Key) -> None:
    """Those of all versions of YAML, in any case; in quotes they are text."""
    if key.path[0] == "backends":
        return
    for true, false in (("true", "false"), ("yes", "no"), ("On", "OFF")):
        assert _at(loads(_file(key, true)), key) is True
        assert _at(loads(_file(key, false)), key) is False
    with pytest.raises(ConfigError, match="write it without quotes"):
        loads(_file(key, "'Yes'"))


@pytest.mark.parametrize(
    "key", [key for key in KEYS.values() if key.words], ids=lambda key: ".".join(key.path)
)
def test_the_case_of_a_word_does_not_matter(key: Key) -> None:
    """It is the word of the reference then."""
    for word in key.words:
        if word in {"true", "false", "srv"}:
            continue
        assert loads(_file(key, f"'{word.upper()}'")) == loads(_file(key, f"'{word}'"))
        assert _at(loads(_file(key, f"'{word.title()}'")), key) == word


def test_a_consequence_is_no_mistake_of_its_own() -> None:
    """Where the backends are there under a name that is nearly right, nobody is told to list some."""
    for text in (
        "backend: [http://a:1]",
        "Backends: [http://a:1]",
        "discover: {file: x}",
        "discovery: {consul: x}",
    ):
        with pytest.raises(ConfigError) as caught:
            loads(text, need_backends=True)
        assert len(caught.value.problems) == 1


def test_relative_paths_are_those_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the proxy is started, all files are found beside the one that names them, and told so."""
    monkeypatch.chdir("/")
    file = tmp_path / "proxy.yaml"
    file.write_text(
        f"{BACKEND}discovery: {{file: more.yaml, kubernetes: {{kubeconfig: /etc/kube}}}}\n"
        "sessions: {files: ../up}\ntls: {acme: {folder: acme}}\n"
    )
    config = load(file)
    assert config.discovery.file == f"{tmp_path}/more.yaml"
    assert config.discovery.kubernetes.kubeconfig == "/etc/kube"
    assert config.sessions.files == f"{tmp_path}/../up"
    assert config.tls.acme.folder == f"{tmp_path}/acme"
    assert load(os.path.relpath(file)) == config
    assert loads(file.read_text()).discovery.file == "more.yaml"


def test_all_files_that_cannot_be_read_are_told_with_their_paths(tmp_path: Path) -> None:
    """Both of a pair and those of backends, each at its line; a key in place of its path is not shown."""
    file = tmp_path / "proxy.yaml"
    file.write_text(
        "backends: [{url: 'https://a:1', tls: {ca: ca.pem}}]\ntls:\n  cert: cert.pem\n  key: key.pem\n"
        '  certificates: [{cert: /nowhere/c, key: "-----BEGIN PRIVATE KEY-----\\nhush"}]\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    missing = "No such file or directory"
    assert [(problem.line, problem.key, problem.message) for problem in caught.value.problems] == [
        (1, "backends[0].tls.ca", f"cannot be read: {tmp_path}/ca.pem: {missing}"),
        (3, "tls.cert", f"cannot be read: {tmp_path}/cert.pem: {missing}"),
        (4, "tls.key", f"cannot be read: {tmp_path}/key.pem: {missing}"),
        (5, "tls.certificates[0].cert", f"cannot be read: /nowhere/c: {missing}"),
        (5, "tls.certificates[0].key", "must be the path of a file, not what it holds"),
    ]


def test_a_default_is_held_against_what_was_given() -> None:
    """A pause that is longer than the default of the longest one is told as if both were there."""
    with pytest.raises(ConfigError, match=r"longest: must not be less than dns.shortest \(got 30.0\)"):
        loads("discovery: {dns: {shortest: 1m}}")
