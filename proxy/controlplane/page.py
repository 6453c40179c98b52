"""The page of the admin listener: one file, served as it is.

Its style and its script may run because the policy names their hashes; nothing else may, and nothing is
fetched from elsewhere. The page holds no data, so it needs no token: it asks for one and uses the API.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


@cache
def page() -> tuple[str, str]:
    """The page and its policy."""
    text = files("proxy.controlplane").joinpath("page.html").read_text(encoding="utf-8")
    hashes = {name: _hash(content) for name, content in _INLINE.findall(text)}
    policy = (
        f"default-src 'none'; script-src '{hashes['script']}'; style-src '{hashes['style']}';"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def add_page(app: FastAPI) -> None:
    """Add its route."""

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show() -> HTMLResponse:
        text, policy = page()
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})
