"""The description of the API for people, at `/docs`: one document made from the OpenAPI description.

It needs nothing from elsewhere, no script, and no network but the listener: an operator may read it on a
machine that reaches nothing else. Every word in it is one of the description, escaped.
"""

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: auto; padding: 1rem; font: 15px/1.5 system-ui, sans-serif; }
section { border-top: 1px solid #8888; padding: .5rem 0 1rem; }
h3 { font-family: ui-monospace, monospace; overflow-wrap: anywhere; margin: .7rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8884; padding: .2rem .6rem .2rem 0; vertical-align: top; }
td { overflow-wrap: anywhere; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; frame-ancestors 'none'"


def page(description: dict[str, Any]) -> str:
    """The document."""
    about, models = description["info"], description["components"]["schemas"]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>API of {escape(about['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>API of {escape(about['title'])} {escape(about['version'])}</h1>",
            '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p><h2>Paths</h2>',
            *(
                line
                for path, methods in description["paths"].items()
                for method, operation in methods.items()
                for line in _operation(f"{method.upper()} {path}", operation)
            ),
            "<h2>Models</h2>",
            *(line for name, model in sorted(models.items()) for line in _model(name, model)),
            "</body></html>",
        ]
    )


def _operation(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<section><h3>{escape(title)}</h3><p>{escape(operation.get('description', ''))}</p>"
    asked = [
        (f"{one['name']} ({one['in']})", _kind(one.get("schema", {})), _told(one.get("schema", {}) | one))
        for one in operation.get("parameters", [])
    ]
    if body := operation.get("requestBody"):
        asked.append(("body", _content(body), ""))
    given = [(code, _content(one), one["description"]) for code, one in operation["responses"].items()]
    yield from _table([*asked, *given])
    yield "</section>"


def _model(name: str, model: dict[str, Any]) -> Iterator[str]:
    yield f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{escape(model.get("description", ""))}</p>'
    if "enum" in model:
        yield f"<p>{_kind(model)}</p>"
    fields = model.get("properties", {})
    yield from _table([(name, _kind(one), _told(one)) for name, one in fields.items()])
    yield "</section>"


def _told(field: dict[str, Any]) -> str:
    examples = ", ".join(map(str, field.get("examples", [])))
    return str(field.get("description", "")) + (f" Such as {examples}." if examples else "")


def _table(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """Names and words are text, what stands between them is a kind."""
    yield "<table>"
    for name, kind, words in rows:
        yield f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{escape(words)}</td></tr>"
    yield "</table>"


def _content(message: dict[str, Any]) -> str:
    """What a body is."""
    return ", ".join(
        _kind(one.get("schema", {})) or escape(media) for media, one in message.get("content", {}).items()
    )


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words, with links to the models."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "enum" in schema:
        return " | ".join(escape(str(one)) for one in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(map(_kind, schema["anyOf"]))
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    return escape(str(schema.get("const", schema.get("type", ""))))
