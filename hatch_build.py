"""Builds a compiled wheel from the same sources, if the environment says `CHAINLIT_PROXY_COMPILED=1`.

mypyc makes one library of the modules below, and for each of them a small one that Python finds before the
`.py` beside it. A copy of the sources is compiled, in a folder of its own: in place, later edits of the
sources would have no effect. The wheel has the sources too, for tracebacks and for those who read.

Coroutines are left out. Compiled, all of them share one place for the exception that is under way: one that
awaits in a `finally` or `except` may find another's there afterwards, or none, and go on although it was
cancelled (`tests/compiled`). Neither a type checker nor a warning tells.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "CHAINLIT_PROXY_COMPILED"
NEEDS = ["mypy[mypyc]>=2.4,<3", "setuptools>=70.1,<90"]
# What each request and frame passes through: packages, and a module.
HOT = ("proxy/wire", "proxy/affinity", "proxy/dataplane", "proxy/logs.py")
# Modules with coroutines that are compiled, and why. Their coroutines await in no `finally` and no `except`:
# those end when they are cancelled, which `tests/compiled` shows.
DESPITE_COROUTINES = {
    "proxy.dataplane.dialing": "every new connection to a backend is made there",
    "proxy.dataplane.exchange": "every request is one, and it is derived from what is compiled",
    "proxy.dataplane.opening": "every new websocket is one",
    "proxy.dataplane.pool": "every request takes its connection there",
    "proxy.dataplane.site": "all that is compiled asks it",
    "proxy.dataplane.upstream": "every response is read there",
}
# Modules without coroutines that are not compiled, and why.
INTERPRETED: dict[str, str] = {}

LIBRARY = "proxy.compiled"  # mypyc adds `__mypyc`
# `make check` tells what is wrong in the types; here many of the packages that are imported may be missing.
_OPTIONS = """
[mypy]
python_version = {version}
mypy_path = .
explicit_package_bases = True
ignore_missing_imports = True
follow_imports = silent
cache_dir = {cache}
"""


def coroutines(source: str) -> list[ast.AsyncFunctionDef]:
    """The functions of a module that are coroutines."""
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AsyncFunctionDef)]


def compiled_modules(root: Path) -> dict[str, Path]:
    """The modules below `root` that are compiled: their names, and their files relative to it."""
    found = {}
    for place in HOT:
        files = [root / place] if place.endswith(".py") else sorted((root / place).rglob("*.py"))
        for file in files:
            path = file.relative_to(root)
            name = ".".join(path.with_suffix("").parts)
            if path.name == "__init__.py" or name in INTERPRETED:
                continue
            if name in DESPITE_COROUTINES or not coroutines(file.read_text(encoding="utf-8")):
                found[name] = path
    return found


def missing() -> str:
    """What a compiled wheel cannot be built without, and what to do; "" if all is there."""
    lacks = [name for name in ("mypyc", "setuptools") if find_spec(name) is None]
    if lacks:
        needs = " ".join(f"'{need}'" for need in NEEDS)
        return f"{' and '.join(lacks)} cannot be imported by {sys.executable}: pip install {needs}"
    import sysconfig  # noqa: PLC0415 - only needed here

    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler `{compiler}`: install one (Debian: apt-get install gcc), or set CC"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        return f"there is no {header}: install the headers of Python (Debian: apt-get install python3-dev)"
    return ""


class CompiledHook(BuildHookInterface[Any]):
    """Puts the libraries into the wheel; a source archive and an editable install have none."""

    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    def _is_wanted(self) -> bool:
        return os.environ.get(SWITCH, "0") not in ("", "0") and self.target_name == "wheel"

    def dependencies(self) -> list[str]:
        """What the build needs besides; pip asks for it first."""
        return NEEDS if self._is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, before the wheel is written."""
        if not self._is_wanted():
            return
        if version == "editable":
            self.app.display_warning(f"an editable install is not compiled: {SWITCH} has no effect on it")
            return
        if lack := missing():
            self.app.abort(
                f"No compiled wheel ({SWITCH} is set): {lack}\nWithout {SWITCH} the wheel needs none."
            )
        self._folder = tempfile.TemporaryDirectory(prefix="chainlit-proxy-")
        built = build(Path(self.root), Path(self._folder.name))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(file): name for name, file in built.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled, once the wheel has it."""
        if self._folder is not None:
            self._folder.cleanup()


def build(root: Path, folder: Path) -> dict[str, Path]:
    """Compile a copy of the sources in an empty folder; what was made, by its path in the package."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(root / "proxy", folder / "sources/proxy", ignore=ignored)
    return compile_copy(folder, list(compiled_modules(root).values()), LIBRARY)


def compile_copy(folder: Path, files: list[Path], library: str) -> dict[str, Path]:
    """Compile these files of `folder/sources` into one library: what was made, by its path in the package."""
    made, suffix = folder / "made", EXTENSION_SUFFIXES[0]
    options = _OPTIONS.format(version=f"{sys.version_info[0]}.{sys.version_info[1]}", cache=folder / "cache")
    (folder / "mypy.ini").write_text(options, encoding="utf-8")
    command = [sys.executable, str(Path(__file__).resolve()), str(folder), library, *map(str, files)]
    # In a process of its own: mypyc ends its process on errors.
    subprocess.run(command, cwd=folder / "sources", check=True)  # noqa: S603
    built = {str(file.relative_to(made)): file for file in sorted(made.rglob(f"*{suffix}"))}
    if lacks := {str(path.with_suffix("")) + suffix for path in files} - built.keys():
        raise RuntimeError(f"these were not compiled: {', '.join(sorted(lacks))}")
    return built


def _compile_here(folder: Path, library: str, files: list[str]) -> None:
    """Compile these files of the present folder into `made` below `folder`."""
    from mypyc.build import mypycify  # noqa: PLC0415 - only who compiles has it
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    extensions = mypycify(
        ["--config-file", str(folder / "mypy.ini"), *files],
        opt_level="3",
        debug_level="0",  # names of functions stay, which py-spy and perf show; lines of C would be of no use
        target_dir=str(folder / "c"),
        group_name=library,
    )
    command = build_ext(Distribution({"name": "chainlit-sticky-proxy", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(folder / "made"), str(folder / "objects")
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    _compile_here(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
