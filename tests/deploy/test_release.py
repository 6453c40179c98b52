"""What is released: the same files make the same archives, and these are complete."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

SOURCES = ["proxy", "chainlit_proxy", "deploy", "docs", "tests", "examples", "benchmarks"]
FILES = [
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "Makefile",
    "constraints.txt",
    "hatch_build.py",
]
FILES += ["config.example.yaml", "mkdocs.yml", "compose.yaml", "Dockerfile", ".dockerignore", ".gitignore"]
SKIPPED = shutil.ignore_patterns("__pycache__", "node_modules", ".files", ".chainlit", "chainlit.md")
IN_WHEEL = [
    "proxy/cli/__init__.py",
    "proxy/controlplane/web/page.html",
    "proxy/controlplane/web/page.css",
    "proxy/controlplane/web/start.js",
    "proxy/py.typed",
    "chainlit_proxy/__init__.py",
    "chainlit_proxy/py.typed",
    "share/man/man1/chainlit-proxy.1",
    "share/bash-completion/completions/chainlit-proxy",
    "share/zsh/site-functions/_chainlit-proxy",
    "share/fish/vendor_completions.d/chainlit-proxy.fish",
]
IN_SOURCES = [
    "chainlit_proxy/__init__.py",
    "chainlit_proxy/py.typed",
    "hatch_build.py",
    "deploy/man/chainlit-proxy.1",
    "deploy/completion/chainlit-proxy.bash",
    "deploy/systemd/chainlit-proxy.service",
    "tests/deploy/test_release.py",
    "mkdocs.yml",
]


def build(folder: Path, umask: int) -> Path:
    """Both archives, built from a copy of the sources in a folder of any name, with files of any age."""
    copy = folder / f"copy-{umask:o}"
    copy.mkdir(parents=True)
    old = os.umask(umask)
    try:
        for name in SOURCES:
            shutil.copytree(ROOT / name, copy / name, ignore=SKIPPED, copy_function=shutil.copyfile)
        for name in FILES:
            shutil.copyfile(ROOT / name, copy / name)
        done = subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", str(folder / f"dist-{umask:o}")],
            cwd=copy,
            env=os.environ | {"SOURCE_DATE_EPOCH": "1764028800", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    finally:
        os.umask(old)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / f"dist-{umask:o}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two builds of the same sources: other folders, other times, other rights of files."""
    return [build(tmp_path_factory.mktemp(name), umask) for name, umask in (("here", 0o22), ("there", 0o77))]


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_builds_are_the_same(built: list[Path], kind: str) -> None:
    """Wheels and archives of sources do not tell where and when they were made."""
    hashes = set()
    for folder in built:
        (archive,) = folder.glob(kind)
        hashes.add((archive.name, hashlib.sha256(archive.read_bytes()).hexdigest()))
    assert len(hashes) == 1


def test_the_wheel_is_complete(built: list[Path]) -> None:
    """The package, its page and what a shell and `man` look for; nothing of the tests."""
    (wheel,) = built[0].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for wanted in IN_WHEEL:
        assert [name for name in names if name.endswith(wanted)], wanted
    assert [name for name in names if name.startswith(("tests", "docs", "benchmarks"))] == []


def test_the_sources_are_complete(built: list[Path]) -> None:
    """Whoever unpacks them can run the tests and build the site."""
    (sources,) = built[0].glob("*.tar.gz")
    with tarfile.open(sources) as archive:
        names = archive.getnames()
    for wanted in IN_SOURCES:
        assert [name for name in names if name.endswith(f"/{wanted}")], wanted
