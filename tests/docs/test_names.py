"""The names on the pages are those of the code: keys, metrics, words of the log, files, addresses."""

import re
from enum import Enum
from pathlib import Path

import pytest

from proxy import errors
from proxy.affinity.backend import AdminState
from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.health import Verdict
from proxy.config import Config
from proxy.config.fields import KEYS
from proxy.parts import Parts
from proxy.sessions.metrics import Counts
from tests.docs.pages import ROOT, Piece, admin_of, found, table

AFFINITY = ROOT / "docs/affinity.md"
SESSIONS = ROOT / "docs/sessions.md"
OPERATIONS = ROOT / "docs/operations.md"
METRICS = ROOT / "docs/metrics.md"
FAILURES = ROOT / "docs/failures.md"
FOLDERS = ("proxy", "chainlit_proxy", "tests", "docs", "examples", "benchmarks", "deploy")
KEY = re.compile(rf"^((?:{'|'.join(sorted({path[0] for path in KEYS}))})(?:\.[a-z_]+)+)(?=:|$)")
FILE = re.compile(rf"^(?:{'|'.join(FOLDERS)})(?:/[\w.-]+)+$")
METRIC = re.compile(r"\bchainlit_proxy_\w+")


def metrics() -> dict[str, set[str]]:
    """The labels of our metrics, by the name that a query uses."""
    return {family.sample: set(family.labels) for family in Parts(Config()).collector.collect()}


def instance_metrics() -> set[str]:
    """The metrics of an instance that shares its sessions."""
    return {metric.name + "_total" * (metric.type == "counter") for metric in Counts().collect()}


def having(pattern: re.Pattern[str], *kinds: str) -> list[Piece]:
    """The pieces of some kinds that speak of something."""
    return [piece for piece in found(*kinds) if pattern.search(piece.text)]


def code(cell: str) -> str:
    """What stands between the backticks of a table's cell."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match, cell
    return match[1]


def told_metrics() -> list[list[str]]:
    """The rows of all tables of the page on metrics."""
    lines = METRICS.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| `chainlit_proxy_")
    ]


def test_every_metric_is_told() -> None:
    """The tables of metrics have each of them once, with its labels, and no other."""
    told = [(code(name), set(re.findall(r"\w+", labels))) for name, labels, _ in told_metrics()]
    assert dict(told) == metrics()
    assert len(told) == len(metrics())


def test_every_metric_of_an_instance_is_told() -> None:
    """The page on shared sessions has each of them, and no other."""
    assert {code(name) for name, _ in table(SESSIONS, "Metrics of an instance")} == instance_metrics()


@pytest.mark.parametrize("piece", having(METRIC, "span", "promql"), ids=str)
def test_a_metric_in_the_text_exists(piece: Piece) -> None:
    """A metric that a page speaks of, or asks for, is one of ours."""
    named = {re.sub("_bucket$", "", name) for name in METRIC.findall(piece.text)}
    assert named <= metrics().keys() | instance_metrics()


@pytest.mark.parametrize("piece", having(KEY, "span"), ids=str)
def test_a_key_in_the_text_exists(piece: Piece) -> None:
    """What begins with a section and a dot is a key of the configuration."""
    match = KEY.match(piece.text)
    assert match
    assert tuple(match[1].split(".")) in KEYS


@pytest.mark.parametrize("piece", having(FILE, "span"), ids=str)
def test_a_file_in_the_text_exists(piece: Piece) -> None:
    """A path in the repository leads to a file or a folder."""
    assert (ROOT / piece.text).exists()


@pytest.mark.parametrize(
    ("page", "heading", "words"),
    [(AFFINITY, "Five kinds of evidence", Evidence), (FAILURES, "Health", Verdict)],
)
def test_the_words_of_a_table_are_those_of_the_code(page: Path, heading: str, words: type[Enum]) -> None:
    """Evidence and verdicts stand in the tables in the order of the code."""
    assert [row[0].strip("`") for row in table(page, heading)] == [word.value for word in words]


def test_the_outcomes_are_those_of_the_code() -> None:
    """The second table of the page on affinity has each outcome, in the order of the code."""
    text = AFFINITY.read_text(encoding="utf-8").split("| outcome |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [outcome.value for outcome in Outcome]


def test_the_admin_states_are_those_of_the_code() -> None:
    """The commands that set one are called as the states are, each of them, and no other."""
    told = {code(row[0]) for row in table(OPERATIONS, "Drain and maintenance")}
    assert told == {state.value for state in AdminState}


def test_the_errors_are_those_of_the_code() -> None:
    """The values of the label `error` are classes of errors of the backends' side."""
    (row,) = [row for row in told_metrics() if "upstream_errors" in row[0]]
    upstream = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.ProxyError)
        and kind.side is errors.Side.UPSTREAM
    }
    assert set(re.findall(r"`(\w+)`", row[2])) == upstream


def test_the_addresses_of_the_admin_listener_are_told() -> None:
    """The table of the admin listener has all of its paths, and no other."""
    app = admin_of(None)
    served = {path for route in app.routes if (path := getattr(route, "path", None))}
    told = {
        path
        for row in table(OPERATIONS, "The admin listener")
        for path in re.findall(r"`(/[^`\s]*)`", row[0])
    }
    assert told == served
