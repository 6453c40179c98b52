"""Older releases of Chainlit, each in a virtual environment of its own.

A release is installed without its dependencies, and finds those of the newest one, which this project's own
environment has: to resolve the old ones anew takes pip from minutes to hours, and what is tried here is
Chainlit's own code. Kept below `.venv-chainlit`, so that it is done once.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".venv-chainlit"
RELEASES = ("2.0.6", "2.3.0", "2.6.0", "2.9.0")
"""From the oldest minor release that runs with today's dependencies, in even steps."""


def python_with(release: str) -> Path:
    """The interpreter that imports this release; installed at the first call."""
    folder = CACHE / release
    python = folder / "bin" / "python"
    installed = folder / "installed"
    if installed.exists():
        return python
    venv.create(folder, with_pip=True, clear=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    (site / "newest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, f"chainlit=={release}"], check=True)
    installed.touch()
    return python
