"""A build without what compiling needs: it says so, and the pure wheel needs none of it."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import BuiltinImporter
from pathlib import Path

import pytest

import hatch_build
from tests.docs.pages import ROOT

FILES = ["pyproject.toml", "README.md", "LICENSE", "hatch_build.py"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel is made of."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("proxy", "chainlit_proxy", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def build(sources: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Have hatchling make the wheel, as pip does."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"],
        cwd=sources,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("switch", ["", "0"])
def test_no_compiler_is_needed_by_default(sources: Path, switch: str) -> None:
    """Without the variable the wheel is the pure one, for every Python and every machine."""
    shutil.rmtree(sources / "dist", ignore_errors=True)
    done = build(sources, CC="no-such-compiler", **{hatch_build.SWITCH: switch})
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (sources / "dist").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")


def test_a_missing_compiler_is_named(sources: Path) -> None:
    """With the variable a build that cannot be says what is missing and what to do, and makes no wheel."""
    shutil.rmtree(sources / "dist", ignore_errors=True)
    done = build(sources, CC="no-such-compiler -O2", **{hatch_build.SWITCH: "1"})
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert "there is no C compiler `no-such-compiler`: install one" in told
    assert "Traceback" not in told
    assert list((sources / "dist").glob("*.whl")) == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be installed is said in words that can be typed."""
    monkeypatch.setattr(sys, "meta_path", [BuiltinImporter])
    for name in ("mypyc", "setuptools"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    told = hatch_build.missing()
    assert told.startswith("mypyc and setuptools cannot be imported by ")
    assert all(f"'{need}'" in told for need in hatch_build.NEEDS)
