"""The list of backends in a file of its own."""

import re
from pathlib import Path

import pytest

from proxy.config import BackendSettings, ConfigError
from proxy.config.found import found_backends


def mistakes(text: str) -> list[str]:
    """What is said about a list."""
    with pytest.raises(ConfigError) as caught:
        found_backends(text.encode(), "list.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    [
        "- {name: a, url: http://h:1}\n- url: https://h:2\n  weight: 2\n",
        '[{"name": "a", "url": "http://h:1"}, {"url": "https://h:2", "weight": 2}]',
        "- {name: a, url: http://h:1}\n- targets: ['h:2']\n  labels: {__scheme__: https, weight: '2'}\n",
    ],
    ids=["yaml", "json", "file_sd"],
)
def test_each_form_is_read(text: str) -> None:
    """Our own entries as YAML and JSON, groups of file_sd, and both in one list, mean the same."""
    assert found_backends(text.encode(), "list") == (
        BackendSettings(name="a", url="http://h:1"),
        BackendSettings(url="https://h:2", weight=2.0),
    )


def test_every_mistake_is_told_at_its_line() -> None:
    """Entries and targets of groups alike, all at once, by the name of the file."""
    said = mistakes("- url: http://h:1\n  wight: 2\n- targets:\n  - h:2\n  - 'h:x'\n- url: ftp://h:3\n")
    assert [line.split(" ")[0] for line in said] == [
        "list.yaml:2:",
        "list.yaml:5:",
        "list.yaml:6:",
    ]
    assert "did you mean 'weight'?" in said[0]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "a", "[", "- a", "- targets: h:1", "- targets: [[]]", "- 1: 2"]
)
def test_what_is_no_list_of_backends_is_a_mistake(text: str) -> None:
    """Nothing, an empty list and other shapes are mistakes, and never another error."""
    assert mistakes(text)


def test_the_addresses_of_a_proxy_are_no_part_of_it() -> None:
    """A list is read without the configuration around it, so none of its defaults is compared."""
    (found,) = found_backends(b"- url: http://127.0.0.1:8000", "list")
    assert found.address.port == 8000


def test_a_backend_twice_is_a_mistake() -> None:
    """Names and urls differ, as in the configuration."""
    (said,) = mistakes("- targets: ['h:1', 'h:1']\n")
    assert "must differ" in said


def test_the_lists_on_the_page_are_good() -> None:
    """What `docs/discovery.md` shows can be read as it stands, and has two backends each."""
    page = (Path(__file__).parents[2] / "docs/discovery.md").read_text(encoding="utf-8")
    shown = re.findall(r"```json\n(\[.*?)```", page, re.DOTALL)
    assert shown
    assert all(len(found_backends(text.encode(), "list")) == 2 for text in shown)
