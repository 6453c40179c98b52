"""What others put in front of Chainlit, or Debian's: `python -m tests.support.front_programs`.

nginx and HAProxy, for the tests of `doctor` and of the configurations in docs/. Debian starts a service of a
package where the machine allows it; the tests start programs of their own, on ports of their own.
"""

import shutil
import sys

from tests.browser import chromium

PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy"}
MISSING = f"no programs to stand in front: install Debian's {', '.join(PACKAGES.values())}"
_FOLDERS = "/usr/sbin:/usr/local/sbin"  # of programs that not everybody has in the PATH


def find(name: str) -> str | None:
    """The path of one of them."""
    return shutil.which(name) or shutil.which(name, path=_FOLDERS)


def program(name: str) -> str:
    """The path of one of them, which is there."""
    found = find(name)
    assert found, MISSING
    return found


def main() -> int:
    """Prints the paths; non-zero with one line if some are not there."""
    missing = [package for name, package in PACKAGES.items() if find(name) is None]
    if missing:
        chromium.install(missing)
    found = [path for name in PACKAGES if (path := find(name))]
    is_there = len(found) == len(PACKAGES)
    print(*(found if is_there else [MISSING]), file=sys.stdout if is_there else sys.stderr)
    return 0 if is_there else 1


if __name__ == "__main__":
    sys.exit(main())
