"""Finds Prometheus and promtool, or installs Debian's package: `python -m tests.deploy.prometheus`."""

import shutil
import sys

from tests.browser import chromium

NAMES = ("promtool", "prometheus")
MISSING = "no Prometheus for the tests of deploy/: install Debian's package `prometheus`"


def find() -> tuple[str, str] | None:
    """The paths of both programs."""
    tool, server = map(shutil.which, NAMES)
    return (tool, server) if tool and server else None


def main() -> int:
    """Prints the paths; non-zero with one line if they are not there."""
    if find() is None:
        chromium.install(("prometheus",))
    found = find()
    print(" ".join(found) if found else MISSING, file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
