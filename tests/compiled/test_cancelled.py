"""What compiled coroutines do when they are cancelled: why nearly all of them stay interpreted."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hatch_build
from tests.compiled import cancelled
from tests.docs.pages import ROOT

# These await, too, and some of that while an exception is under way.
_SUSPECT = (ast.AsyncFor, ast.AsyncWith)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The shapes that go on when they are cancelled, once `cancelled.py` is compiled."""
    if lack := hatch_build.missing():
        pytest.skip(lack)
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "sources").mkdir()
    shutil.copy(cancelled.__file__, folder / "sources")
    hatch_build.compile_copy(folder, [Path("cancelled.py")], "shapes")
    return survivors(folder / "made", "cancelled")


def survivors(folder: Path, module: str) -> set[str]:
    """What a module in a folder prints, in a process of its own."""
    code = f"import asyncio, {module} as m\nasyncio.run(m.main())\nprint(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    *names, file = done.stdout.splitlines()
    assert Path(file).parent == folder, file
    return set(names)


def test_interpreted_ones_end() -> None:
    """Of the shapes that are tried none goes on: what does, compiled, is a fault of the compiler."""
    assert survivors(Path(cancelled.__file__).parent, "cancelled") == set()


@pytest.mark.parametrize("shape", cancelled.PLAIN)
def test_plain_ones_end_when_compiled(compiled: set[str], shape: str) -> None:
    """An await outside of `finally` and `except` ends its coroutine when it is cancelled."""
    assert shape not in compiled


@pytest.mark.xfail(strict=True, reason="mypyc loses it; once it does not, more may be compiled")
def test_one_with_a_finally_that_waits_ends_when_compiled(compiled: set[str]) -> None:
    """Compiled, it goes on behind its `finally` as if nobody had cancelled it.

    mypyc keeps the exception that is under way in `sys.exc_info()`, which they all share: after an await
    in a `finally` or an `except` it may be that of another one, or none.
    """
    assert "cleaned_up" not in compiled


def suspects(function: ast.AsyncFunctionDef) -> list[int]:
    """The lines in which a coroutine awaits while an exception may be under way."""
    found = []

    def walk(node: ast.AST, *, inside: bool) -> None:
        if isinstance(node, ast.Await) and inside:
            found.append(node.lineno)
        if isinstance(node, _SUSPECT):
            found.append(node.lineno)
        for name, value in ast.iter_fields(node):
            deeper = inside or (
                isinstance(node, (ast.Try, ast.TryStar)) and name in {"finalbody", "handlers"}
            )
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child, inside=deeper)

    walk(function, inside=False)
    return found


def test_suspects_are_found() -> None:
    """The test below is not empty: each shape that is not known to end is seen, and no other."""
    tree = ast.parse(Path(cancelled.__file__).read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    assert len(suspects(functions["cleaned_up"])) == 1
    assert len(suspects(functions["neighbour"])) == 1
    assert [name for name in cancelled.PLAIN if suspects(functions[name])] == []


@pytest.mark.parametrize("module", hatch_build.DESPITE_COROUTINES)
def test_compiled_coroutines_are_plain(module: str) -> None:
    """A coroutine that is compiled has a shape of which it is known that it ends when it is cancelled."""
    source = hatch_build.compiled_modules(ROOT)[module]
    text = (ROOT / source).read_text(encoding="utf-8")
    wrong = {function.name: suspects(function) for function in hatch_build.coroutines(text)}
    assert {name: lines for name, lines in wrong.items() if lines} == {}
