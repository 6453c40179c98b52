"""The reference and the example have every key with its default, in the same words."""

import re
from pathlib import Path

import pytest
import yaml

from proxy.config import BackendSettings, Config, ConfigError, load, loads
from proxy.config.example import example
from proxy.config.fields import KEYS, Key
from proxy.config.reference import default_of, reference

ROOT = Path(__file__).parents[2]
DOCUMENTED = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")


def test_the_reference_is_up_to_date() -> None:
    """Run `python -m proxy.config.reference > docs/configuration.md` after a change of the models."""
    assert reference() == DOCUMENTED


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: ".".join(key.path))
def test_every_key_is_documented(key: Key) -> None:
    """Each key has a description that ends as a sentence, and stands in the reference with its default."""
    name = ".".join(key.path)
    assert key.description
    assert key.description.endswith(".")
    assert key.allowed
    if key.section is not None or len(key.path) == 1:
        assert f"# {name}\n\n{key.description}" in DOCUMENTED
    else:
        assert f"| `{name}` | {default_of(key)}; {key.allowed} | {key.description} |\n" in DOCUMENTED


SECTIONS = "|".join(path[0] for path, key in KEYS.items() if len(path) == 1 and key.section)


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: ".".join(key.path))
def test_what_a_description_names_is_so(key: Key) -> None:
    """A key that it names is one, a default that it tells is that of the model."""
    named = re.findall(rf"(?<![\w.-])(?:{SECTIONS})(?:\.[a-z_]+)+\b", key.description)
    assert [name for name in named if tuple(name.split(".")) not in KEYS] == []
    if "0, the default" in key.description:
        assert key.field.default == 0
    for number in re.findall(r"\b([0-9]+) MiB", key.description):
        assert key.field.default == int(number) << 20


def test_the_defaults_in_the_reference_are_those_of_the_models() -> None:
    """Each printed default reads as the value that the model has."""
    lines: list[str] = []
    for key in KEYS.values():
        text = default_of(key).strip("`")
        if key.section is None and key.path[0] != "backends" and text not in {"not set", "required"}:
            opening = ": {".join(key.path)
            lines.append(f"{opening}: {text}{'}' * (len(key.path) - 1)}")
    assert len(lines) > 30
    assert all(loads(line) == Config() for line in lines)


def test_the_mistakes_in_the_reference_are_what_is_said() -> None:
    """The introduction shows real messages, the longest one shortened."""
    shown = DOCUMENTED.split("```text\n")[1].split("```")[0].splitlines()
    text = "\n\n\n\n\nhealth:\n  interval: fast\n\n  timeot: 1\n\nadmin:\n  token: ${ADMIN_TOKEN}\n"
    with pytest.raises(ConfigError) as caught:
        loads(text, name="proxy.yaml", environ={})
    assert len(shown) == len(caught.value.problems)
    for line, problem in zip(shown, caught.value.problems, strict=True):
        assert str(problem).startswith(line.removesuffix(" ..."))


def test_the_example_is_up_to_date() -> None:
    """Run `python -m proxy.config.example > config.example.yaml` after a change of the models."""
    assert example() == (ROOT / "config.example.yaml").read_text(encoding="utf-8")


def test_the_example_is_complete_and_has_the_defaults() -> None:
    """`config.example.yaml` loads, holds every key, and differs from the defaults in its backends only."""
    path = ROOT / "config.example.yaml"
    config = load(path, need_backends=True, environ={})
    assert config.backends == (
        BackendSettings(name="a", url="http://127.0.0.1:8001"),
        BackendSettings(name="b", url="http://127.0.0.1:8002"),
    )
    assert config.model_copy(update={"backends": ()}) == Config()
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in KEYS.values():
        place = written
        for part in key.path:
            place = place[0] if isinstance(place, list) and place else place
            if place == []:  # what its entries hold has no default
                break
            assert part in place
            place = place[part]
