"""The pages that users read, cut into what the tests here look at: fenced blocks, code spans, links.

Only as much Markdown is understood as the pages use: fences of three backticks, spans of one, links and
images on one line. A fence that is not closed is an error.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI

from proxy.app import App
from proxy.config import Config
from proxy.controlplane.admin import Tokens, admin_app
from proxy.scrape import Scrape

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")  # its text may begin on the line before
_HEADING = re.compile(r"#+ +(.+)")


class Piece(NamedTuple):
    """Something found on a page; `kind` is the language of a fence, "span", "link" or "heading"."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def pieces(page: Path) -> tuple[Piece, ...]:
    """Everything of a page, in its order."""
    return tuple(_read(page))


def found(*kinds: str) -> list[Piece]:
    """All pieces of some kinds, on all pages."""
    return [piece for piece in chain.from_iterable(map(pieces, PAGES)) if piece.kind in kinds]


def table(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without the row of titles and the line below it."""
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if (match := _HEADING.fullmatch(line)) and match[1] == heading:
            break
    else:
        raise AssertionError(f"{page.name} has no heading {heading!r}")
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return rows[2:]


def anchors(page: Path) -> set[str]:
    """The fragments that links may name: headings in small letters, with dashes for spaces."""
    headings = [piece.text.lower() for piece in pieces(page) if piece.kind == "heading"]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def _read(page: Path) -> Iterator[Piece]:
    fence: list[str] | None = None
    start, language = 0, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if fence is None:
                fence, start, language = [], number + 1, line.removeprefix("```").strip()
            else:
                yield Piece(page, start, language, "\n".join(fence) + "\n")
                fence = None
        elif fence is not None:
            fence.append(line)
        else:
            if match := _HEADING.fullmatch(line):
                yield Piece(page, number, "heading", match[1])
            assert line.count("`") % 2 == 0, f"{page}:{number}: a code span does not end on its line"
            yield from (Piece(page, number, "span", text) for text in _SPAN.findall(line))
            yield from (Piece(page, number, "link", text) for text in _LINK.findall(_SPAN.sub("", line)))
    assert fence is None, f"{page}:{start}: the fence is not closed"


def admin_of(token: str | None) -> FastAPI:
    """The admin application of a proxy that has nothing to do."""
    app = App(Config())
    return admin_app(
        app.actions(),
        app.admin.views(),
        Scrape(app.parts.collector.collect),
        lambda: Tokens([token] if token else ()),
    )
