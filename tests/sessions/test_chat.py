"""What is used of Chainlit, tried with the real one in a process of its own."""

import importlib.metadata
from pathlib import Path
from typing import Any

from tests.sessions.labs import TOP, told_by
from tests.support.older_chainlit import RELEASES

VERSION = importlib.metadata.version("chainlit")


def lab(scenario: str, folder: Path) -> Any:
    """The answer of a scenario."""
    return told_by("chainlit_lab.py", folder, scenario, timeout=60)


def test_messages_and_elements_of_all_kinds_come_back(tmp_path: Path) -> None:
    """By content, path and URL; also those that Chainlit makes of a figure or a table."""
    answer = lab("restore", tmp_path)
    assert answer["lost"] == [0, 0]
    assert answer["messages"] == [
        ["all", False, "me"],
        ["wrong", True, "Assistant"],
        ["well?", False, "Assistant"],
        ["done", False, "step"],
    ]
    assert answer["message"]
    for name, (same_kind, same_data, content) in answer["same"].items():
        assert same_kind, name
        assert same_data, name
        kind, _, how = name.partition(" by ")
        assert content == {"content": kind, "path": "in a file", "url": True}.get(how, content), name
    assert answer["same"]["pyplot"][2] == "a plot"
    assert answer["same"]["plotly"][2] == '{"data":[]}'
    assert answer["sent again"]


def test_what_is_broken_costs_itself_only(tmp_path: Path) -> None:
    """A value, a message or an element; each is counted at each end, and warned of once however often."""
    answer = lab("damage", tmp_path)
    assert answer["messages"] == [["first", ["good", "linked"]], ["dark", []], ["last", []]]
    assert answer["lost"] == [6, 4]
    assert answer["warnings"] == [
        "a message is not restored",
        "a message is not shared",
        "an element is not restored",
        "an element is not shared",
        "cl.user_session['shade'] is not shared",
        "the metadata of a message is not shared",
    ]


def test_a_session_that_cannot_be_taken_down_is_one_kind_of_answer(tmp_path: Path) -> None:
    """Whatever an app has put in the place of Chainlit's own, nothing but Unstorable is raised."""
    assert set(lab("refuses", tmp_path)) == {"a session cannot be taken down"}


def test_another_chainlit_is_known_by_what_it_does(tmp_path: Path) -> None:
    """One line says what would get lost; to find out is quick, and leaves nothing behind."""
    answer = lab("differences", tmp_path)
    assert answer.pop("as it is") == ["known", {}, {}, [], True]
    assert answer.pop("a new field") == "known", "it comes along like the others"
    assert all(text.startswith(f"Chainlit {VERSION}: ") for text in answer.values())
    assert not any("\n" in text for text in answer.values())
    told = {case: text.partition(": ")[2] for case, text in answer.items()}
    assert told.pop("session").startswith("a session cannot be restored: TypeError(")
    assert told == {
        "metadata": "a message comes back without its metadata",
        "another name": "a session cannot be restored: "
        "AttributeError(\"'Message' object has no attribute 'text'\")",
        "props": "an element of type custom comes back without its props",
        "an attribute": "a Message comes back without its buffer",
        "profile": "a session comes back without its chat_profile",
        "user_session": "a session comes back without its cl.user_session",
        "chat_context": "a session comes back without its cl.chat_context",
        "restore": "a session has no restore",
    }


def test_the_documentation_names_the_releases() -> None:
    """What users read is what `make compat` runs with."""
    text = " ".join((TOP / "docs" / "sessions.md").read_text().split())
    assert f"release of each minor: {', '.join(RELEASES[:-1])} and {RELEASES[-1]}." in text
