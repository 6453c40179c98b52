"""Runs pytest on the compiled build: `python -m tests.compiled ARGUMENTS OF PYTEST`.

With `--or-skip` before them it is no error if nothing can be compiled on this machine.

The wheel is built and installed into `.venv-compiled`, anew only if something that goes into it has changed.
The tests run in a copy of the tree in which the package is the installed one: whatever they import, start or
read is that. `tests/conftest.py` ends the run if it is not.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import hatch_build

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-compiled"
PYTHON = VENV / "bin/python"
TREE = VENV / "tree"
STAMP = VENV / "stamp"
PACKAGES = ("proxy", "chainlit_proxy")
_LEFT = (".*", "__pycache__", "node_modules", *PACKAGES, "dist", "build", "artefacts", "*.egg-info")


def sources() -> str:
    """What the wheel is made of, and by what, as one hash."""
    told = hashlib.sha256(f"{sys.version} {platform.machine()} {version('mypy')}".encode())
    files = [ROOT / "hatch_build.py", ROOT / "pyproject.toml"]
    files += sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*"))
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            told.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return told.hexdigest()


def install() -> None:
    """Build the wheel and install it into an environment that has the packages of this one."""
    stamp = sources()
    if STAMP.exists() and STAMP.read_text() == stamp:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    environment = os.environ | {hatch_build.SWITCH: "1"}
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(VENV / "dist")]
    subprocess.run(build, cwd=ROOT, env=environment, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", VENV], check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(VENV)})
    # Its own packages come first; an editable install among those of this one is not looked at.
    (Path(site) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(PYTHON),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, *map(str, (VENV / "dist").glob("*.whl"))], check=True)
    STAMP.write_text(stamp)


def scripts() -> None:
    """The commands of those packages, as `chainlit`, run by the interpreter that has the build."""
    folder = Path(sys.executable).parent
    ours = f"#!{folder}/python".encode()
    for script in folder.iterdir():
        there = VENV / "bin" / script.name
        if script.is_file() and not there.exists() and (text := script.read_bytes()).startswith(ours):
            there.write_bytes(f"#!{PYTHON}\n".encode() + text.partition(b"\n")[2])
            there.chmod(0o755)


def copy() -> None:
    """The tree as it is now, with the installed package in it."""
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(ROOT, TREE, ignore=shutil.ignore_patterns(*_LEFT))
    for name in (".dockerignore", ".gitignore"):
        shutil.copy(ROOT / name, TREE)
    site = sysconfig.get_path("purelib", vars={"base": str(VENV)})
    for package in PACKAGES:
        (TREE / package).symlink_to(Path(site) / package)
    modules = ROOT / "tests/js/node_modules"
    if modules.exists():
        (TREE / "tests/js/node_modules").symlink_to(modules.resolve())


def main() -> None:
    """Run the tests, unless nothing can be compiled here."""
    arguments = sys.argv[1:]
    may_skip = arguments[:1] == ["--or-skip"]
    if lack := hatch_build.missing():
        print(f"The compiled build is not tested: {lack}")
        sys.exit(0 if may_skip else 1)
    install()
    scripts()
    copy()
    os.chdir(TREE)
    environment = os.environ | {"EXPECTED_BUILD": "compiled"}
    os.execve(PYTHON, [str(PYTHON), "-m", "pytest", *arguments[may_skip:]], environment)


if __name__ == "__main__":
    main()
