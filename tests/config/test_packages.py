"""What is said where an optional package is missing can be typed, and brings that package alone."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from proxy.config import ConfigError, load
from proxy.config.packages import OPTIONAL, install, needs
from proxy.sessions import SharingSettings
from tests.docs.pages import PAGES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted(path for path in (ROOT / "proxy").rglob("*.*") if path.suffix in {".py", ".html"})
OTHERS = ["Dockerfile", "Makefile", "compose.yaml", "config.example.yaml"]
DEPLOYED = sorted(
    path for top in ("deploy", "examples") for path in (ROOT / top).rglob("*") if path.is_file()
)


def test_the_ranges_are_those_of_the_extras() -> None:
    """Each extra that users may want, and no other, in the words of `pyproject.toml`."""
    extras = {name: tuple(needed) for name, needed in PROJECT["optional-dependencies"].items()}
    assert dict(OPTIONAL) == {name: needed for name, needed in extras.items() if name != "dev"}


def test_the_words() -> None:
    """The package is named, and the command has each requirement in quotes for the shell."""
    assert needs("dns") == "needs the package dnspython: pip install 'dnspython>=2.7,<3'"
    assert needs("otel").startswith(
        "needs the packages opentelemetry-exporter-otlp-proto-http and opentelemetry-sdk: pip install '"
    )
    assert install("otel").count("'") == 4


@pytest.mark.parametrize(
    "path", [*SOURCES, *PAGES, *(ROOT / name for name in OTHERS), *DEPLOYED], ids=lambda path: path.name
)
def test_nobody_is_told_to_install_a_name_that_is_not_ours(path: Path) -> None:
    """No message, page or file asks an index for this project, which is on none."""
    text = path.read_bytes().decode(errors="replace")
    own = re.escape(PROJECT["name"]).replace(r"\-", "[-_.]")
    wrong = rf"{own}\[|(?:pip3?|pipx|uv|poetry|pip-tools) [^\n`]*\b(?:install|add)\b[^\n`]*(?<!/){own}(?! @)"
    assert re.findall(wrong, text, re.IGNORECASE) == []


def test_every_requirement_in_a_message_is_one_of_ours() -> None:
    """A command that is written out, as where sessions stand apart, has the range of the extra."""
    known = {f"'{requirement}'" for needed in OPTIONAL.values() for requirement in needed}
    written = {
        word
        for path in SOURCES
        for words in re.findall(r"pip install ((?:'[^'{}]+' ?)+)", path.read_text(encoding="utf-8"))
        for word in words.split()
    }
    assert written
    assert written <= known


def test_a_store_without_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Redis in a configuration and Redis of an instance are told in the same words."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError) as missing:
        SharingSettings("redis://127.0.0.1:6379").open()
    assert str(missing.value) == needs("redis")
    file = tmp_path / "proxy.yaml"
    file.write_text("affinity:\n  directory: {redis: redis://127.0.0.1:6379}\n")
    with pytest.raises(ConfigError, match=rf":2: affinity\.directory\.redis: {re.escape(needs('redis'))}"):
        load(file)
