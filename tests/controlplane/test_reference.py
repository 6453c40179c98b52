"""The description of the API for people."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

from proxy.controlplane import reference
from tests.controlplane.test_admin import Admin, run


class Links(HTMLParser):
    """The elements of a document that lead somewhere or can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As HTMLParser."""
        self.tags.add(tag)
        for name, value in attrs:
            if name in {"href", "src"}:
                self.targets.add(value or "")
            elif name == "id":
                self.ids.add(value or "")


def test_everything_is_described() -> None:
    """Every path, parameter, field and word of the OpenAPI description is there, and each model is led to."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask("/docs")
        assert answer.status == 200
        text = answer.body.decode()
        told = json.loads((await admin.ask("/openapi.json")).body)
        plain = unescape(re.sub(r"<[^>]+>", " ", text))
        operations = [one for methods in told["paths"].values() for one in methods.values()]
        words: list[Any] = [*told["paths"], *told["components"]["schemas"]]
        words += [one["description"] for one in operations]
        words += [parameter["name"] for one in operations for parameter in one.get("parameters", [])]
        for model in told["components"]["schemas"].values():
            words += [*model.get("properties", {}), *model.get("enum", [])]
            words += [field["description"] for field in model.get("properties", {}).values()
                      if "description" in field]  # fmt: skip
        assert len(words) > 100
        assert [word for word in words if word not in plain] == []
        links = Links(text)
        assert {"#BackendStatus", "#Overview", "/openapi.json"} <= links.targets
        assert {target[1:] for target in links.targets if target.startswith("#")} <= links.ids

    run(test)


def test_nothing_comes_from_elsewhere() -> None:
    """No script and no address but those of the listener; the policy allows only the one style."""

    async def test(admin: Admin) -> None:
        answer = await admin.ask("/docs")
        links = Links(answer.body.decode())
        assert not links.tags & {"script", "link", "img", "iframe"}
        assert all(target.startswith(("#", "/")) for target in links.targets)
        policy = (answer.get(b"content-security-policy") or b"").decode()
        assert policy == reference.POLICY
        assert policy.startswith("default-src 'none'; style-src 'sha256-")

    run(test)


def test_words_are_text() -> None:
    """What a description says can be no markup."""
    odd = "<b>&\"'"
    operation = {"description": odd, "parameters": [{"name": odd, "in": "query"}], "responses": {}}
    page = reference.page(
        {
            "info": {"title": odd, "version": odd},
            "paths": {"/" + odd: {"get": operation}},
            "components": {"schemas": {odd: {"properties": {odd: {"type": odd, "examples": [odd]}}}}},
        }
    )
    assert "<b>" not in page
    assert page.count("&lt;b&gt;&amp;&quot;&#x27;") == 11
