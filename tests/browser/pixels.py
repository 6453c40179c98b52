"""Looks at screenshots: how much of one has a colour. The browser itself decodes them, on another page."""

import base64

from playwright.sync_api import BrowserContext, Page

_COUNT = """async ([png, red, green, blue]) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
    canvas.drawImage(image, 0, 0);
    const data = canvas.getImageData(0, 0, image.width, image.height).data;
    let found = 0;
    for (let at = 0; at < data.length; at += 4) {
        const off = [red, green, blue].map((wanted, part) => Math.abs(data[at + part] - wanted));
        if (Math.max(...off) <= 2) found += 1;
    }
    return found / (image.width * image.height);
}"""


def share(context: BrowserContext, png: bytes, colour: str) -> float:
    """The part of a screenshot, from 0 to 1, that has the colour `#rgb` or `#rrggbb`."""
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    page = context.new_page()
    try:
        return float(page.evaluate(_COUNT, [base64.b64encode(png).decode(), *bytes.fromhex(digits)]))
    finally:
        page.close()


def variable(page: Page, name: str) -> str:
    """The value of a variable of the page's style sheet."""
    style = "getComputedStyle(document.documentElement)"
    return str(page.evaluate(f"name => {style}.getPropertyValue(name)", name)).strip()
