"""The documentation as a site: built without a warning, and complete in itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

# What a browser fetches when it opens a page, other than what is only linked to.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc=["']?([^"'\s>]+)"""
    r"""|<link\b(?![^>]*rel=["']?(?:canonical|next|prev))[^>]*?\bhref=["']?([^"'\s>]+)""",
)
IN_STYLES = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_site(site: Path) -> None:
    """Each page below `docs` has become one; a warning, such as a page that no menu names, ends the build."""
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs"):
            place = page.relative_to(ROOT / "docs").with_suffix("")
            assert (site / (place.parent if place.name == "index" else place) / "index.html").exists(), page


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No page and no style sheet asks another host for a script, a style, a font or a picture."""
    asked = [
        (str(file.relative_to(site)), address)
        for pattern, kind in ((FETCHED, "*.html"), (IN_STYLES, "*.css"))
        for file in site.rglob(kind)
        for found in pattern.findall(file.read_text(encoding="utf-8"))
        for address in found
        if address
    ]
    assert len(asked) > len(PAGES)
    assert [pair for pair in asked if re.match(r"(?:[a-z]+:)?//", pair[1])] == []
