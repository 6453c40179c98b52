"""What a page says of the code is what the code does: figures, defaults, and nothing twice or left over."""

import re
from collections import Counter
from functools import reduce
from pathlib import Path

import pytest

from proxy import metrics, net, output
from proxy.cli.views import TITLES
from proxy.config import Config
from proxy.config.fields import KEYS
from proxy.controlplane import events, probes, rebalance, reload
from proxy.dataplane import buckets, clients, last_hop
from tests.docs.pages import PAGES, ROOT, Piece, pieces, table

OPERATIONS = ROOT / "docs/operations.md"
METRICS = ROOT / "docs/metrics.md"
LOGS = ROOT / "docs/logs.md"
FAILURES = ROOT / "docs/failures.md"
LIMITS = ROOT / "docs/limits.md"
TROUBLESHOOTING = ROOT / "docs/troubleshooting.md"
MANUAL = [page for page in PAGES if page.name not in {"CHANGELOG.md", "configuration.md"}]
KEY = r"`(?P<key>(?:[a-z_]+\.)+[a-z_]+)`"
NUMBER = r"(?P<number>\b[0-9][0-9,]*(?:\.[0-9]+)?)\b"
# How the text tells a default: "`timeouts.idle`, 75 seconds by default", "`limits.head` is 32768 bytes",
# "`limits.head` (32768 bytes)", "the 90 of `timeouts.tunnel_idle`".
DEFAULTS = [
    re.compile(rf"{KEY}[^`.|]{{0,60}}?{NUMBER}[^`.,;|]{{0,20}} by default"),
    re.compile(rf"{KEY}[^`.|]{{0,40}} by default {NUMBER}"),
    re.compile(rf"{KEY} is {NUMBER} (?:bytes|seconds)"),
    re.compile(rf"{KEY} \({NUMBER}(?: bytes| seconds| s)?\)"),
    re.compile(rf"\bthe {NUMBER} of {KEY}"),
]
# Words for what is not so any more as soon as somebody has done it.
LEFT_OVER = re.compile(
    r"\b(?:TODO|FIXME|XXX|not tested yet|untested yet|not implemented|coming soon)\b", re.IGNORECASE
)
FIGURES: list[tuple[Path, str, float]] = [
    (METRICS, "exported for {:.0f} more seconds", metrics._AFTERWARDS),
    (OPERATIONS, "The last {:.0f} are kept in memory", events._SIZE),
    (OPERATIONS, "moved to it as well, five every two seconds" if rebalance._AT_ONCE == 5 else "?", 0),
    (LOGS, "at most {:.0f} MiB", output._MAX_BYTES / (1 << 20)),
    (LOGS, "MiB and {:,.0f}", output._MAX_LINES),
    (FAILURES, "four times as often while" if probes._FASTER == 4 else "?", 0),
    (LIMITS, "the {:.0f} clients that asked last", buckets.MOST_CLIENTS),
    (LIMITS, "up to {:.0f} per listener", net._BACKLOG),
    (LIMITS, "`Retry-After: {:.0f}`", clients._RETRY_AFTER),
    (TROUBLESHOOTING, "came back to the proxy four times" if last_hop._MOST_OF_OURS == 4 else "?", 0),
]


def text_of(page: Path) -> str:
    """A page as one text with single spaces, so that no line's end parts what belongs together."""
    return re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("page", "words", "value"), FIGURES, ids=lambda value: str(value)[:40])
def test_a_figure_is_that_of_the_code(page: Path, words: str, value: float) -> None:
    """Who changes a constant that a page tells changes the page."""
    assert words.format(value) in text_of(page)


def told_defaults() -> list[tuple[str, str, str]]:
    """Each default that the text of a page tells: where, the key, the number."""
    return [
        (str(page.relative_to(ROOT)), match["key"], match["number"])
        for page in MANUAL
        for pattern in DEFAULTS
        for match in pattern.finditer(text_of(page))
    ]


def test_defaults_are_found() -> None:
    """The pages tell some of them, and the patterns see that."""
    assert len(told_defaults()) > 4


@pytest.mark.parametrize(("page", "key", "number"), told_defaults())
def test_a_default_in_the_text_is_the_default(page: str, key: str, number: str) -> None:
    """A number behind a key that is said to be so by default is what the key has."""
    default: object = reduce(getattr, key.split("."), Config())
    assert float(number.replace(",", "")) == default, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_told_twice(page: Path) -> None:
    """No two sections of a page have one heading, and no block of commands or settings is there twice."""
    found = pieces(page)
    blocks = [piece.text for piece in found if piece.kind in {"sh", "yaml", "text", "json", "nginx"}]
    commands = [line for piece in found if piece.kind in {"sh", "text"} for line in piece.text.splitlines()]
    if page.name != "CHANGELOG.md":  # its sections are called the same in each version
        headings = [piece.text for piece in found if piece.kind == "heading"]
        assert [text for text, count in Counter(headings).items() if count > 1] == []
    assert [text for text, count in Counter(blocks).items() if count > 1] == []
    evals = [line for line in commands if line.startswith("eval ")]
    assert len(evals) == len(set(evals))


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_nothing_is_left_over(page: Path) -> None:
    """No page says that something is still to be done or to be tested."""
    assert LEFT_OVER.findall(text_of(page)) == []


def test_the_columns_of_status_are_those_that_it_prints() -> None:
    """Wherever a page shows what `chainlit-proxy status` prints."""
    shown = [
        (str(piece), tuple(re.split(r" {2,}", line)))
        for page in MANUAL
        for piece in pieces(page)
        if piece.kind == "text"
        for line in piece.text.splitlines()
        if line.startswith("BACKEND  HEALTH   ADMIN")
    ]
    assert shown
    assert [place for place, titles in shown if titles != TITLES] == []


def test_what_needs_a_start_is_told() -> None:
    """The table of the reload names all keys that take effect with the next start, and no other."""
    (row,) = [row for row in table(OPERATIONS, "Reload") if row[1] == "with the next start"]
    assert tuple(re.findall(r"`([\w.]+)`", row[0])) == reload._AT_START


def test_the_table_of_the_reload_names_keys() -> None:
    """Each key in its first column is one of the configuration."""
    sections = {path[: length + 1] for path in KEYS for length in range(len(path))}
    named = [key for row in table(OPERATIONS, "Reload") for key in re.findall(r"`([\w.]+)`", row[0])]
    assert [key for key in named if tuple(key.split(".")) not in sections and key != "url"] == []


def test_pieces_have_their_place() -> None:
    """The tests above are not empty."""
    assert sum(len(pieces(page)) for page in MANUAL) > 500
    assert isinstance(pieces(OPERATIONS)[0], Piece)
