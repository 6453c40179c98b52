"""The packages for the Node.js clients of the tests are installed here, and nowhere else."""

import os
from pathlib import Path

import pytest

from tests.js.install import install

# As `npm ci` does: what is in the folder goes first, behind a link too.
NPM = """#!/bin/sh
for old in node_modules/*; do rm -f "$old"; done
mkdir -p node_modules && echo new > node_modules/package
"""


def test_what_a_link_leads_to_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that shares the packages of another gets its own, and the other keeps what it has."""
    shared, checkout, programs = (tmp_path / name for name in ("shared", "checkout", "programs"))
    for folder in (shared, checkout, programs):
        folder.mkdir()
    for name in ("node", "npm"):
        (programs / name).write_text(NPM)
        (programs / name).chmod(0o755)
    (shared / "package").write_text("old\n")
    (checkout / "node_modules").symlink_to(shared)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    install(checkout)
    assert (shared / "package").read_text() == "old\n"
    assert (checkout / "node_modules/package").read_text() == "new\n"
