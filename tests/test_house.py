"""House rules that a machine can check: sizes, docstrings, and what belongs to a release."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import PORTS, free_port

TOP = Path(__file__).parent.parent
SOURCES = sorted(path for name in ("proxy", "chainlit_proxy") for path in (TOP / name).rglob("*.py"))
TESTS = sorted(path for path in (TOP / "tests").rglob("test_*.py") if "node_modules" not in path.parts)
MOST_LINES = 400
MOST_IN_A_FUNCTION = 80  # the aim is 40; beyond twice that it is two functions


def named(path: Path) -> str:
    """A file as it is shown in a test's id."""
    return str(path.relative_to(TOP))


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=named)
def test_files_are_short(path: Path) -> None:
    """A file is one idea: never above 400 lines."""
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_functions_are_short(path: Path) -> None:
    """A function is read at one look."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < MOST_IN_A_FUNCTION, node.name


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_modules_say_what_they_are_for(path: Path) -> None:
    """Each module begins with what it decides and knows."""
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_tests_state_their_rule(path: Path) -> None:
    """Every test's docstring is the one rule that it guards."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_nothing_of_ours_is_mocked(path: Path) -> None:
    """Tests script peers, transports and time, and never replace our own code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "unittest.mock"
            assert node.module != "unittest" or all(alias.name != "mock" for alias in node.names)
        if isinstance(node, ast.Import):
            assert all(alias.name != "unittest.mock" for alias in node.names)


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_tests_with_real_processes_are_where_they_are_looked_for(path: Path) -> None:
    """`make system` looks in these folders only: to read all tests for a few takes a quarter of a minute."""
    (folders,) = re.findall(r"(?m)^SYSTEM := (.*)$", (TOP / "Makefile").read_text())
    marks = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark"
    }
    if "system" in marks:
        assert str(path.parent.relative_to(TOP)) in folders.split()
    else:
        assert "alone" not in marks, "only make system looks at this mark"


def test_two_runs_of_the_tests_share_no_port() -> None:
    """Whoever starts a process again finds its port free, though others test on this machine as well."""
    code = "from tests.support.processes import PORTS, free_port; print({free_port() for _ in range(PORTS)})"
    ours = {free_port() for _ in range(PORTS)}
    other = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert not ours & ast.literal_eval(other.stdout)


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE", "config.example.yaml", "Makefile"])
def test_a_release_is_whole(name: str) -> None:
    """What a user looks for first is there, and says something."""
    assert (TOP / name).read_text().strip()
