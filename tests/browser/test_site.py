"""The documentation as a site, in real Chromium: it needs nothing else, and nothing in it fails."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests.browser.tab import ARTEFACTS
from tests.docs.pages import ROOT

pytestmark = pytest.mark.browser


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """Where the built site is served, and its pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, timeout=100, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    pages = [str(Path(file).parent.relative_to(folder)) for file in sorted(folder.rglob("index.html"))]
    yield f"http://127.0.0.1:{server.server_port}", pages
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_page_asks_for_anything_from_elsewhere(
    context: BrowserContext, site: tuple[str, list[str]]
) -> None:
    """Every page loads with its own files only, without an error in the console."""
    url, pages = site
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
    for name in pages:
        page.goto(f"{url}/{name}/", wait_until="load")
    assert len(pages) > 15
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
    assert errors == []
    page.goto(f"{url}/affinity/")
    page.screenshot(path=ARTEFACTS / "site.png")
