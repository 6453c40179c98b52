"""Renders the chart with Helm's own code, in a process of its own: a library in Go goes badly with forks.

Reads a list of values from its input and prints, for each, `{"documents": [...], "notes": ...}` or
`{"error": ...}`; called with `lint`, a list of what the linter says of them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.docs.pages import ROOT

CHART = Path(os.environ.get("CHART_UNDER_TEST") or ROOT / "deploy/kubernetes/chart")


class Strict(yaml.CSafeLoader):
    """Refuses a key that is there twice, as what applies an object may."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """What is there once."""
        made = super().construct_mapping(node, deep)
        if len(made) != len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return made


class ValuesError(ValueError):
    """Helm refuses the values."""


def chosen(values: dict[str, Any]) -> dict[str, Any]:
    """The values with a choice for what has no default."""
    return {**values, "proxy": {"trusted": [], **values.get("proxy", {})}}


def render(**values: Any) -> list[dict[str, Any]]:
    """The objects of a release `site` in the namespace `chat`, by chosen values. Raises ValuesError."""
    return render_all([chosen(values)])[0]


def render_all(several: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The same for several values, at the price of one. Raises ValuesError."""
    answers = ask(several)
    for answer in answers:
        if "error" in answer:
            raise ValuesError(answer["error"])
    return [answer["documents"] for answer in answers]


def lint(values: dict[str, Any]) -> list[str]:
    """What Helm's linter says, as strict as it can be."""
    return [str(told) for told in ask([values], "lint")[0]]


def ask(values: list[dict[str, Any]], *words: str) -> Any:
    """What it prints for several values."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.deploy.helm", *words],
        input=json.dumps(values),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Answers one question."""
    import helm_python  # noqa: PLC0415 - it starts the runtime of Go

    def rendered(values: dict[str, Any]) -> dict[str, Any]:
        try:
            texts = chart.render(values=values, name="site", namespace="chat")
        except helm_python.HelmError as error:
            return {"error": str(error)}
        files = [text for name, text in sorted(texts.items()) if name.endswith(".yaml")]
        return {
            "documents": [document for text in files for document in yaml.load_all(text, Strict) if document],
            "notes": "".join(text for name, text in texts.items() if name.endswith("NOTES.txt")),
        }

    def linted(values: dict[str, Any]) -> list[Any]:
        report = helm_python.lint(CHART, values, strict=True)
        return [*report["messages"], *report["errors"]]

    with helm_python.Chart.load(CHART) as chart:
        answer = linted if "lint" in sys.argv else rendered
        json.dump([answer(values) for values in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
