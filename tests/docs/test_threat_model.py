"""The threat model names tests, and each of them exists."""

import ast
import re

import pytest

from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs/threat-model.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(PAGE.read_text(encoding="utf-8")))))
def test_named_tests_exist(path: str, name: str) -> None:
    """What is said to be shown is shown by a test of this name in this file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_defence_is_shown() -> None:
    """No row of the table is without a test, and nothing else stands among them."""
    rows = table(PAGE, "What is defended")
    assert len(rows) > 10
    for _, _, shown in rows:
        assert shown
        assert NAMED.sub("", shown).strip(", ") == "", shown
