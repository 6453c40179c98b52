"""Finds Chromium, or installs Debian's: `python tests/browser/chromium.py`.

No browser is ever downloaded from elsewhere. Where none is found and none may be installed, one line says
what to do: the script ends with it, and the tests fail with it. Needs nothing but the standard library.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = (
    "no Chromium for the browser tests: install Debian's package `chromium`, "
    "or name a Chromium or Chrome in the variable CHROMIUM"
)
# Without fonts the screenshots would show boxes.
PACKAGES = ("chromium", "fonts-liberation")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # The page asks for a font and a style sheet from elsewhere; the tests stay on this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.*",
)


def find() -> str | None:
    """The path of the program: what CHROMIUM names, else the first of the usual names."""
    named = os.environ.get("CHROMIUM")
    candidates = (named,) if named else NAMES
    return next((path for name in candidates if (path := shutil.which(name))), None)


def install(packages: Iterable[str]) -> None:
    """Installs Debian packages, if this user may and the system has such packages."""
    apt = shutil.which("apt-get")
    if apt is None:
        return
    prefix: list[str] = []
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None or subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode:
            return
        prefix = [sudo, "-n"]
    command = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", apt, "-q"]
    for step in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        if subprocess.run([*command, *step], stdin=subprocess.DEVNULL, check=False).returncode:
            return


def main() -> int:
    """Prints the path; non-zero with one line if there is no Chromium."""
    if find() is None and not os.environ.get("CHROMIUM"):
        install(PACKAGES)
    path = find()
    print(path or MISSING, file=sys.stdout if path else sys.stderr)
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main())
