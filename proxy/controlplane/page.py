"""The page of the admin listener: its parts in `web` as one document, made once.

Its style and its script may run because the policy names their hashes; nothing else may, and nothing is
fetched from elsewhere, which is why it is one document. The page holds no data, so it needs no token: it asks
for one and uses the API.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

# One script, in this order: each part uses what those before it have said.
_SCRIPTS = ("base", "words", "api", "sessions", "backends", "flow", "panels", "start")


@cache
def page() -> tuple[str, str]:
    """The page and its policy."""
    style, script = _part("page.css"), "\n".join(_part(f"{name}.js") for name in _SCRIPTS)
    text = _part("page.html").replace("<style></style>", f"<style>{style}</style>")
    text = text.replace("<script></script>", f"<script>{script}</script>")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}';"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _part(name: str) -> str:
    return files("proxy.controlplane").joinpath("web", name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def add_page(app: FastAPI) -> None:
    """Add its route."""

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show() -> HTMLResponse:
        text, policy = page()
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})
