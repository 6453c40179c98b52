"""Other releases of Chainlit, each in a virtual environment of its own.

A release is installed without its dependencies, and finds those of the newest one, which this project's own
environment has: to resolve the old ones anew takes pip from minutes to hours, and what is tried here is
Chainlit's own code. Kept below `.venv-chainlit`, so that it is done once.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from packaging.version import Version

CACHE = Path(__file__).parents[2] / ".venv-chainlit"
RELEASES = (
    *("2.0.603", "2.1.2", "2.2.1", "2.3.0", "2.4.400", "2.5.5", "2.6.9", "2.7.2", "2.8.5", "2.9.6"),
    *("2.10.1", "2.11.1", "2.12.0"),
)
"""The newest release of each minor, oldest first; the documentation has the same list."""


def newer() -> list[str]:
    """What the package index has after these: the newest of each minor, which may be a pre-release."""
    command = [sys.executable, "-m", "pip", "index", "versions", "chainlit", "--pre"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    listed = next(line for line in told.splitlines() if line.startswith("Available versions:"))
    known, minors = Version(RELEASES[-1]), dict[tuple[int, int], Version]()
    for version in sorted(map(Version, listed.partition(":")[2].split(","))):
        if version > known and version.major == known.major:
            minors[version.major, version.minor] = version
    return [str(version) for version in minors.values()]


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
