"""Records the picture of the README, docs/images/kill-9.svg: `make recording`.

A real run: `chainlit-proxy run` with two replicas of the example, a real page in headless Chromium, and
`kill -9` of the page's replica in the middle of an answer. The script fails if the page notices more than the
notice: a reload, a closed websocket, or another name than the one it was told.

The picture is an animated SVG: the first screenshot whole, then only the part of the page that changed, each
shown from its moment on. Below the page is a terminal with what was typed and what the proxy logged.
"""

import base64
import io
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops
from playwright.sync_api import Page, sync_playwright

from tests.browser.chat_server import ROOT, ChatServer
from tests.browser.chromium import FLAGS, MISSING, find
from tests.browser.tab import PROCESS, Tab

PICTURE = ROOT / "docs" / "images" / "kill-9.svg"
MOST_BYTES = 400_000
WIDTH, HEIGHT = 760, 600
LINE, TERMINAL = 20, 5  # pixels, lines
SHORTEST = 0.08  # seconds for which a screenshot is shown
LOOK = 20.0  # milliseconds between two looks at the page
LAST = 4.0  # seconds for which the last one is shown
READING = 2000.0  # milliseconds for a reader between two steps
COLOURS = 48
PACE = 0.06  # seconds between two words of the app: slow enough to be killed in the middle
WORDS = 25  # of the answer, when the replica is killed
NOTICE = "The answer was cut off"
WITHIN = 30.0
LOGGED = re.compile(
    r"^\d\d:\d\d:\d\d (?:INFO|WARNING) .*(?:backend replica-|handed over|replica-\d is ready).*$"
)
STYLE = """
    .frame { fill: none; stroke: #d0d7de }
    .terminal { fill: #1f2328 } .typed { fill: #7ee787 } .logged { fill: #d0d7de }
    text { font: 13px ui-monospace, SFMono-Regular, Menlo, 'Liberation Mono', monospace; white-space: pre }
    @media (prefers-color-scheme: dark) { .frame { stroke: #30363d } .terminal { fill: #010409 } }
"""
TITLE = "kill -9 in the middle of an answer, and the chat continues"
TELLS = (
    "One of two Chainlit instances is killed while it answers. The page stays connected and says that the "
    "answer was cut off. The next answer comes from the other instance, which still knows the user's name."
)


class Film:
    """What was seen and typed, with its time; the script owns it."""

    def __init__(self, page: Page) -> None:
        self.page, self.begun = page, time.monotonic()
        self.shots: list[tuple[float, bytes]] = []  # time, PNG
        self.lines: list[tuple[float, str, str]] = []  # time, class, text
        self._chromium = page.context.new_cdp_session(page)
        self._chromium.on("Page.screencastFrame", self._take)
        self._chromium.send("Page.startScreencast", {"format": "png"})

    def _take(self, frame: dict[str, Any]) -> None:
        self.shots.append((self.now(), base64.b64decode(frame["data"])))
        self._chromium.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def until(self, question: Callable[[], object]) -> None:
        """Films until the answer is true."""
        deadline = time.monotonic() + WITHIN
        while not question():
            assert time.monotonic() < deadline, "not within the time"
            self.page.wait_for_timeout(LOOK)

    def write(self, kind: str, text: str) -> None:
        """A line for the terminal."""
        self.lines.append((self.now(), kind, text))


def record(film: Film, tab: Tab, server: ChatServer) -> None:
    """The story: a name is told, its instance is killed in an answer, and the name is asked for."""
    film.write("typed", "$ chainlit-proxy run app.py --replicas 2")
    film.page.wait_for_timeout(READING)
    tab.send("my name is Ada")
    film.until(lambda: tab.answers.count() == 1)
    film.page.wait_for_timeout(READING)
    begun = tab.messages.count()
    tab.send("tell me more")
    film.until(lambda: tab.messages.count() > begun and _words(tab) > WORDS)
    home, since = _process(tab), time.time()
    logged = len(server.log.read_text().splitlines())
    os.kill(home, signal.SIGKILL)
    film.write("typed", f"$ kill -9 {home}")
    film.until(lambda: NOTICE in film.page.inner_text("body"))
    film.page.wait_for_timeout(READING)
    tab.send("who am I?")
    film.until(lambda: tab.answers.count() == 2)
    for line in server.log.read_text().splitlines()[logged:]:
        if LOGGED.match(line):
            film.lines.append((film.lines[-1][0] + 0.3, "logged", line[9:100]))
    assert "Ada" in tab.answers.last.inner_text()
    assert not tab.was_closed(since), "the page lost its websocket"
    assert not tab.reloaded
    assert _process(tab) != home
    film.page.wait_for_timeout(READING)


def _words(tab: Tab) -> int:
    """How long the last message is."""
    return len(tab.messages.last.inner_text().split())


def _process(tab: Tab) -> int:
    """The process that gave the last whole answer."""
    return int(PROCESS.findall(tab.answers.last.inner_text())[-1])


def drawing(film: Film) -> str:
    """The picture: screenshots, terminal and the times at which they appear."""
    whole = film.shots[-1][0] + LAST
    height = HEIGHT + (TERMINAL + 1) * LINE
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
        f'<title id="title">{TITLE}</title>\n<desc id="desc">{TELLS}</desc>\n<style>{STYLE}</style>',
        *_changes(film.shots, whole),
        f'<rect class="terminal" y="{HEIGHT}" width="{WIDTH}" height="{(TERMINAL + 1) * LINE}"/>',
    ]
    for row, (at, kind, text) in enumerate(film.lines[:TERMINAL], 1):
        y = HEIGHT + row * LINE + 4
        parts.append(f'<text class="{kind}" x="14" y="{y}">{escape(text)}{_shown(at, whole)}</text>')
    frame = f'<rect class="frame" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}"/>'
    return "\n".join([*parts, frame, "</svg>\n"])


def _changes(shots: list[tuple[float, bytes]], whole: float) -> list[str]:
    """The first screenshot, and of each later one the smallest rectangle that differs from the one before."""
    times = [at for at, _ in shots[1:]] + [whole]
    kept = [shot for shot, later in zip(shots, times, strict=True) if later - shot[0] >= SHORTEST]
    before = _opened(kept[0][1])
    images = [_image(before, (0, 0), "")]
    for at, taken in kept[1:]:
        shot = _opened(taken)
        if box := ImageChops.difference(before, shot).getbbox():
            images.append(_image(shot.crop(box), box[:2], _shown(at, whole)))
            before = shot
    return images


def _opened(taken: bytes) -> Image.Image:
    return Image.open(io.BytesIO(taken)).convert("RGB")


def _image(picture: Image.Image, at: tuple[int, int], shown: str) -> str:
    file = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    size = f'x="{at[0]}" y="{at[1]}" width="{picture.width}" height="{picture.height}"'
    return f'<image {size} href="data:image/png;base64,{data}">{shown}</image>'


def _shown(at: float, whole: float) -> str:
    """Hidden until `at`, then shown to the end of each round of `whole` seconds."""
    return (
        f'<animate attributeName="visibility" values="hidden;visible" keyTimes="0;{at / whole:.4f}" '
        f'calcMode="discrete" dur="{whole:.2f}s" repeatCount="indefinite"/>'
    )


def main() -> int:
    """Records, and writes the picture if it is small enough."""
    chromium = find()
    if chromium is None:
        print(MISSING, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = ChatServer(Path(folder), replicas=2, more=f"\nPAUSE = {PACE}\n")
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            server.launch()
            server.wait_healthy()
            context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            tab = Tab(context, server.url)
            film = Film(tab.page)
            record(film, tab, server)
        finally:
            browser.close()
            server.shut_down()
    drawn = drawing(film)
    print(f"{len(film.shots)} screenshots, {film.shots[-1][0]:.1f} s, {len(drawn):,} bytes")
    assert len(drawn) <= MOST_BYTES, "too large: fewer colours or screenshots"
    PICTURE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
