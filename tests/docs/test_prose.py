"""The pages pass the prose linter, and the linter finds what it claims to find."""

from pathlib import Path

import pytest

from tests.docs import prose
from tests.docs.pages import PAGES, ROOT, pieces


@pytest.mark.parametrize("page", prose.finished(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_reads_well(page: Path) -> None:
    """No long sentence, no banned phrase, and no more words than its budget: see `prose.toml`."""
    assert [str(fault) for fault in prose.faults(page)] == []


@pytest.mark.parametrize(
    "page",
    [*sorted((ROOT / "docs/deployment").glob("*.md")), ROOT / "docs/https.md"],
    ids=lambda page: page.stem,
)
def test_a_deployment_ends_with_a_proof(page: Path) -> None:
    """The last section of each page tells how to see that the deployment works."""
    assert [piece.text for piece in pieces(page) if piece.kind == "heading"][-1] == "How to see that it works"


def test_exceptions_and_budgets_are_of_pages() -> None:
    """Every page that `prose.toml` names exists."""
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {*prose.house()["unfinished"], *prose.house()["budget"]} <= names


TEXT = """# What a heading says is not a sentence

Plain text with `code`, and a [link](https://example.com/what-is-told).
What is one too many
is answered. Why not?

- An item
  goes on here.

<!-- figures -->
What a program writes.
<!-- end of figures -->

| a cell | What stands here |
|---|---|

```sh
echo What is typed.
```
"""


def test_sentences_are_found(tmp_path: Path) -> None:
    """Paragraphs, items and cells become sentences with line numbers; code and generated parts do not."""
    page = tmp_path / "page.md"
    page.write_text(TEXT, encoding="utf-8")
    found = [(line, text) for line, text in prose.sentences(prose.prose(page)) if text.strip("-")]
    assert found == [
        (3, "Plain text with X, and a link."),
        (4, "What is one too many is answered."),
        (5, "Why not?"),
        (7, "An item goes on here."),
        (14, "a cell"),
        (14, "What stands here"),
    ]


def test_faults_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The linter reports a long sentence, a banned phrase, a fault of proselint's and a page over budget."""
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setitem(prose.house()["budget"], "page.md", 30)
    page, long = tmp_path / "page.md", " ".join(f"word{number}" for number in range(40))
    page.write_text(f"What is sent is read.\n\nIt is is so.\n\n{long}.\n", encoding="utf-8")
    found = [str(fault) for fault in prose.faults(page)]
    assert [line.partition(": ")[0] for line in found] == ["page.md:1", "page.md:5", "page.md:3", "page.md:1"]
    assert prose.words(page) == 49


def test_the_command_tells_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1 if a page has a fault, otherwise 0."""
    page = ROOT / "README.md"
    assert prose.main([str(page)]) == bool(list(prose.faults(page)))
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 pages, ")
