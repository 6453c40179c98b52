"""The page of the admin listener as an operator sees it: its parts, its colours, and what does not fit."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.browser.tab import ARTEFACTS

READABLE = 4.5  # the contrast that words need (WCAG 2.2, 1.4.3)
DECODE = """async (url) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
  window.drawn = canvas.getContext("2d", {willReadFrequently: true});
  drawn.drawImage(image, 0, 0);
}"""
COLOURS = """({x, y, width, height}) => {
  const {data} = drawn.getImageData(Math.floor(x), Math.floor(y), Math.ceil(width), Math.ceil(height));
  const counts = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const colour = data.slice(at, at + 3).join();
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]).map(([colour]) => colour.split(",").map(Number));
}"""
FAINT = """(least) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if ((colour[3] ?? 1) === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === Node.TEXT_NODE && one.data.trim());
    if (!own || !node.checkVisibility() || node.disabled || node.closest("script, .unseen")) continue;
    const style = getComputedStyle(node), svg = node instanceof SVGElement;
    const [a, b] = [light(parse(svg ? style.fill : style.color)), light(behind(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const told = `${node.tagName} ${node.textContent.trim().slice(0, 40)}`;
    if (contrast < least) found.push(`${told}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""
SMALL = """(least) => [...document.querySelectorAll("button, a, select, summary, input:not([type=checkbox])")]
  .filter((node) => node.checkVisibility() && !node.classList.contains("skip"))
  .filter((node) => node.getBoundingClientRect().height < least)
  .map((node) => `${node.tagName} ${node.textContent.trim()} ${node.getBoundingClientRect().height}`)"""
DEALT_WITH = """() => {
  window.dealtWith = [];
  const real = ask;
  ask = (path, body) => real(path, body).finally(() => setTimeout(() => dealtWith.push(path)));
}"""
SOON = 20  # milliseconds between two looks
LATER = 20_000  # milliseconds: the page is a second behind, the machine more


class Dashboard:
    """The page, opened; what goes wrong in it is collected."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.errors: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        self.page.goto(url)

    @property
    def cards(self) -> Locator:
        """The backends."""
        return self.page.locator("#backends article")

    def card(self, name: str) -> Locator:
        """One of them."""
        return self.cards.filter(has=self.page.get_by_role("heading", name=name, exact=True))

    def state(self, name: str) -> Locator:
        """How it is, in words; a whole card has those of its buttons, too."""
        return self.card(name).locator("header strong")

    def field(self, name: str, title: str) -> Locator:
        """A number of a backend."""
        pairs = self.card(name).locator("dl > div")
        return pairs.filter(has=self.page.get_by_text(title, exact=True)).locator("dd")

    def row(self, name: str) -> Locator:
        """One of them in the table."""
        return self.page.locator("#backends tbody tr:not(.detail)").filter(
            has=self.page.get_by_role("button", name=name, exact=True)
        )

    @property
    def rows(self) -> Locator:
        """Those that the filter lets through."""
        return self.page.locator("#backends tbody tr:not(.detail):not([hidden])")

    def answer(self, *, yes: bool) -> str:
        """Answer the question that the page asks; what it was."""
        box = self.page.get_by_role("dialog")
        text = box.inner_text()
        box.get_by_role("button").nth(1 if yes else 0).click()
        return text

    def hold_still(self) -> None:
        """What the proxy says no longer counts: what is measured next is of one moment."""
        self.page.evaluate("hear = () => {}")

    def over(self) -> int:
        """How many pixels stand out at the side."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def faint(self) -> list[str]:
        """Words that do not stand out enough from what is behind them."""
        return list(self.page.evaluate(FAINT, READABLE))

    def small(self, least: int) -> list[str]:
        """What can be pressed and is less than so many pixels high."""
        return list(self.page.evaluate(SMALL, least))

    @property
    def events(self) -> Locator:
        """What happened."""
        return self.page.locator("#events")

    @contextmanager
    def happens(self, text: str) -> Iterator[None]:
        """What is done meanwhile has such an event, filtered or not; one of an earlier test does not count.

        A page tells what happened earlier before it shows its cards.
        """
        alike = self.events.locator("li").filter(has_text=text)
        before = alike.count()
        yield
        expect(alike).to_have_count(before + 1, timeout=LATER)

    def photograph(self, name: str) -> None:
        """Keeps a screenshot as an artefact of the test run."""
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


class Held:
    """Questions and wishes of the page that a slow network has; each goes on when the test says so."""

    def __init__(self, page: Page, path: str) -> None:
        """`path` is a regular expression for the end of their addresses."""
        self._page = page
        self._routes: list[Route] = []
        page.evaluate(DEALT_WITH)
        page.route(re.compile(f"{path}$"), self._hold)

    def _hold(self, route: Route) -> None:
        self._routes.append(route)

    def __len__(self) -> int:
        return len(self._routes)

    def wait(self, number: int) -> None:
        """Until at least so many are held."""
        for _ in range(LATER // SOON):
            if len(self) >= number:
                return
            self._page.wait_for_timeout(SOON)
        raise AssertionError(f"{len(self)} are held, not {number}")

    def let_go(self, answer: dict[str, Any] | None = None, status: int = 200, at: int = 0) -> None:
        """One of them goes on, or has this answer; until the page has dealt with it."""
        route = self._routes.pop(at)
        before = self._page.evaluate("dealtWith.length")
        if answer is None:
            route.continue_()
        else:
            route.fulfill(status=status, json=answer)
        done = "([url, before]) => dealtWith.slice(before).some((path) => url.endsWith(path))"
        self._page.wait_for_function(done, arg=[route.request.url, before], timeout=LATER)


class Picture:
    """A screenshot of the whole page; Chromium itself decodes it."""

    def __init__(self, page: Page) -> None:
        self._page = page
        shot = base64.b64encode(page.screenshot(full_page=True)).decode()
        self._shot = page.context.new_page()
        self._shot.evaluate(DECODE, f"data:image/png;base64,{shot}")
        self._page.bring_to_front()

    def colours(self, box: Any) -> list[tuple[int, int, int]]:
        """The colours within a box, the most frequent first."""
        return [tuple(colour) for colour in self._shot.evaluate(COLOURS, box)]

    def contrast(self, box: Any) -> float:
        """The contrast of what is drawn in a box to its ground, from 1 to 21; 1 if nothing is drawn."""
        ground, *drawn = (luminance(*colour) for colour in self.colours(box))
        ratios = [(max(ground, one) + 0.05) / (min(ground, one) + 0.05) for one in drawn]
        return max(ratios, default=1.0)


def luminance(*colour: int) -> float:
    """How bright a colour is, from 0 to 1 (WCAG 2.2, relative luminance)."""
    parts = [one / 255 for one in colour]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def is_dark(*colour: int) -> bool:
    """Whether white reads better on it than black."""
    return luminance(*colour) < 0.18
