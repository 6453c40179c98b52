"""Helm's own code before a cluster, in a process of its own: a library in Go goes badly with forks.

Reads `{"kubeconfig", "namespace", "action", "values"}` from its input, and prints what Helm says of the
release `site`, or `{"error": ...}`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.deploy.helm import CHART, chosen
from tests.docs.pages import ROOT

NAME = "site"


class HelmError(AssertionError):
    """Helm does not do what was asked; its words."""


class Release:
    """One release of the chart in a namespace of a cluster."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._where = {"kubeconfig": str(kubeconfig), "namespace": namespace}

    def install(self, **values: Any) -> None:
        """Install it, by chosen values."""
        self._ask("install", chosen(values))

    def upgrade(self, **values: Any) -> None:
        """Upgrade it to these values."""
        self._ask("upgrade", chosen(values))

    def rollback(self) -> None:
        """Have the revision before the last one again."""
        self._ask("rollback")

    def uninstall(self) -> None:
        """Remove it."""
        self._ask("uninstall")

    def _ask(self, action: str, values: dict[str, Any] | None = None) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "tests.deploy.helm_release"],
            input=json.dumps({**self._where, "action": action, "values": values}),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        told = json.loads(done.stdout)
        if told and "error" in told:
            raise HelmError(f"{action}: {told['error']}")
        return told


def main() -> None:
    """Answers one question."""
    import helm_python  # noqa: PLC0415 - it starts the runtime of Go

    asked = json.load(sys.stdin)
    with (
        helm_python.Config(kubeconfig_path=asked["kubeconfig"], namespace=asked["namespace"]) as config,
        helm_python.Chart.load(CHART) as chart,
    ):
        given = (chart, NAME, asked["values"]) if asked["values"] is not None else (NAME,)
        try:
            answer = getattr(config, asked["action"])(*given)
        except helm_python.HelmError as error:
            answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
