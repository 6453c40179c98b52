"""A linter for the pages: short sentences, the house's words, and a budget of words for each page.

    python -m tests.docs.prose [PAGE ...]

checks the pages named, or all that `prose.toml` does not list as unfinished, and exits with 1 if it finds
anything. `prose.toml` holds the phrases and the budgets; proselint adds its own checks. Code, addresses and
the tables that a program writes between two comments are not prose and are skipped.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from proselint.checks import __register__

from tests.docs.pages import PAGES, ROOT

CODE = "X"  # what a code span is read as: one word
_WRITTEN = re.compile(r"<!-- (?P<name>(?!end of )[^>]+) -->.*?<!-- end of (?P=name) -->", re.DOTALL)
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
_REMOVED = re.compile(r"<[^>]*>|!\[[^]]*\]\([^)]*\)|(?<=\])\([^)]*\)|(?<![\w*])[*_]+|[*_]+(?![\w*])|[\[\]]")
_SPAN = re.compile(r"`[^`]+`")
_END = re.compile(r"(?<=[.!?])[\")]*\s+(?=[\"(]?[A-Z0-9])")
_ITEM = re.compile(r"^ *(?:[-*]|\d+\.) +")
_CELLS = re.compile(r" *\| *")


class Fault(NamedTuple):
    """Something to fix, and where it begins."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


class Sentence(NamedTuple):
    """One sentence without its marks, and the line on which it begins."""

    line: int
    text: str


@cache
def house() -> dict[str, Any]:
    """The words, budgets and exceptions."""
    loaded = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    loaded["words"] = {re.compile(pattern): advice for pattern, advice in loaded["words"].items()}
    return loaded


def prose(page: Path) -> str:
    """The page without code, addresses and marks; every line stays where it is."""
    text = page.read_text(encoding="utf-8")
    for pattern in (_WRITTEN, _FENCE):
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    text = _SPAN.sub(CODE, text)
    return _REMOVED.sub(lambda match: "\n" * match[0].count("\n"), text)


def words(page: Path) -> int:
    """How many words a reader of the page has to read, tables included."""
    return len(re.findall(r"\w[\w'’.-]*", prose(page)))  # noqa: RUF001


def blocks(text: str) -> Iterator[list[tuple[int, str]]]:
    """The numbered lines of each paragraph, list item and table cell; headings are left out."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        is_item = _ITEM.match(line)
        if block and (is_item or not line.strip() or line.startswith(("|", "#"))):
            yield block
            block = []
        if line.startswith("|"):
            yield from ([(number, cell)] for cell in _CELLS.split(line.strip("| ")))
        elif line.strip() and not line.startswith("#"):
            block.append((number, line[is_item.end() :] if is_item else line.strip()))
    if block:
        yield block


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences, each with its line."""
    for block in blocks(text):
        starts, joined = [], ""
        for number, line in block:
            starts.append((len(joined), number))
            joined += f"{line} "
        place = 0
        for part in _END.split(joined):
            place = joined.index(part, place)
            yield Sentence(max(number for start, number in starts if start <= place), part.strip())
            place += len(part)


def faults(page: Path) -> Iterator[Fault]:
    """Everything to fix on a page, one rule after the other."""
    rules, text = house(), prose(page)
    for line, sentence in sentences(text):
        count = len(sentence.split())
        if count > rules["longest"]:
            start = " ".join(sentence.split()[:8])
            yield Fault(page, line, f'{count} words in "{start} ...": at most {rules["longest"]}')
        for pattern, advice in rules["words"].items():
            if match := pattern.search(sentence):
                yield Fault(page, line, f'"{match[0].strip()}": {advice}')
    yield from _by_proselint(page, text, rules["without"])
    budget = rules["budget"].get(str(page.relative_to(ROOT)))
    if budget is not None and (count := words(page)) > budget:
        yield Fault(page, 1, f"{count} words, the page has a budget of {budget}: shorten or link")


def _by_proselint(page: Path, text: str, without: list[str]) -> Iterator[Fault]:
    padded = f"\n{text}\n"  # its checks look at what is before and behind a word
    for check in __register__:
        if any(map(check.matches_partial, without)):
            continue
        for result in check.check_with_flags(padded):
            start, end = result.span
            if "\n\n" not in padded[start:end].strip():  # the end of one paragraph and the start of the next
                yield Fault(page, padded.count("\n", 0, start), f"{result.message} ({result.check_path})")


def main(arguments: list[str]) -> int:
    """Prints the faults of the named pages, or of all finished ones; returns the exit status."""
    pages = [Path(name).resolve() for name in arguments] or finished()
    told = [str(fault) for page in pages for fault in faults(page)]
    print("\n".join([*told, f"{len(pages)} pages, {len(told)} to fix"]))
    return bool(told)


def finished() -> list[Path]:
    """The pages that must be without faults."""
    return [page for page in PAGES if str(page.relative_to(ROOT)) not in house()["unfinished"]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
