"""Every link on the pages leads somewhere."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Piece, anchors, found, pieces

RELATIVE = [piece for piece in found("link") if not piece.text.startswith(("http://", "https://"))]
IMAGES = sorted((ROOT / "docs/images").iterdir())


def targets(links: Iterable[Piece]) -> set[Path]:
    """The files that links lead to."""
    return {(link.page.parent / link.text.partition("#")[0]).resolve() for link in links}


@pytest.mark.parametrize("link", RELATIVE, ids=lambda link: f"{link} {link.text}")
def test_a_relative_link_resolves(link: Piece) -> None:
    """The file exists, and so does the heading behind `#`."""
    path, _, fragment = link.text.partition("#")
    target = (link.page.parent / path).resolve() if path else link.page
    assert target.exists()
    assert target.is_relative_to(ROOT)
    if fragment:
        assert fragment in anchors(target)


@pytest.mark.parametrize("start", ["README.md", "docs/index.md"])
def test_every_page_can_be_reached(start: str) -> None:
    """The README and the index link to every page of the documentation."""
    linked = targets(piece for piece in pieces(ROOT / start) if piece in RELATIVE)
    docs = ROOT / "docs"
    pages = {page for page in PAGES if page.is_relative_to(docs) and page != docs / "index.md"}
    assert pages <= linked


def test_every_image_is_shown() -> None:
    """No image is left over."""
    assert set(IMAGES) <= targets(RELATIVE)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_can_be_read_by_all(image: Path) -> None:
    """It is well-formed, says in words what it shows, and has colours for a dark page."""
    svg = ET.parse(image).getroot()  # our own file
    name = "{http://www.w3.org/2000/svg}"
    described = [svg.findtext(f"{name}{tag}") for tag in ("title", "desc")]
    assert all(described)
    assert "prefers-color-scheme: dark" in (svg.findtext(f"{name}style") or "")
