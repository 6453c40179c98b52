"""The page of the admin listener as a document: what its policy lets run, and that it holds no data."""

import base64
import hashlib
import re
from importlib.resources import files

from proxy.affinity.decision import Outcome
from proxy.affinity.evidence import Evidence
from proxy.affinity.session import MoveReason
from proxy.controlplane.page import page
from proxy.dataplane.arrivals import Held
from proxy.dataplane.hand_over_counts import Result
from tests.controlplane.test_admin import TOKEN, Admin, run


def test_the_policy_names_what_the_page_holds() -> None:
    """Its one style and its one script may run, by their hashes; nothing else, and nothing from elsewhere."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask("/")
        policy = (answer.get(b"content-security-policy") or b"").decode()
        text = answer.body.decode()
        for tag, directive in (("script", "script-src"), ("style", "style-src")):
            (content,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"{directive} 'sha256-{digest}';" in policy
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert not re.search(r"(?:src|href)=\"(?!data:|#|\w[\w.]*\")", text)
        assert not re.search(r"\son\w+=|\sstyle=|innerHTML", text)
        assert not re.search(r"[\"'`(]/\w", text), "an address from the root, which may be a front's"
        assert (answer.get(b"x-frame-options"), answer.get(b"cache-control")) == (b"DENY", b"no-store")

    run(test)


def test_the_page_itself_needs_no_token() -> None:
    """It is the same for everybody, and tells nothing of this proxy."""

    async def test(admin: Admin) -> None:
        admin.fleet.add("secret-name", "127.0.0.1", 1, now=0.0)
        answer = await admin.ask("/")
        assert (answer.status, b"secret-name" in answer.body) == (200, False)

    run(test, token=TOKEN)


def test_every_part_is_in_it() -> None:
    """What lies in the folder is served, and a part of the script is short enough to be read."""
    text, _ = page()
    parts = [
        part for part in files("proxy.controlplane").joinpath("web").iterdir() if part.name != "page.html"
    ]
    assert len(parts) > 2
    for part in parts:
        content = part.read_text(encoding="utf-8")
        assert content in text, part.name
        assert len(content.splitlines()) <= 400, part.name


def test_every_word_of_the_counts_is_said_plainly() -> None:
    """Whoever adds a reason, a piece of evidence, an outcome or a result gives the page its words."""
    text, _ = page()
    for words, enum in (
        ("REASONS", MoveReason),
        ("EVIDENCE", Evidence),
        ("OUTCOMES", Outcome),
        ("held", Held),
        ("hand_over", Result),
    ):
        (block,) = re.findall(rf"{words}(?: =|:) \{{([^}}]*)\}}", text)
        for word in enum:
            assert re.search(rf"\b{word.value}: \"", block), (words, word)
