"""What the Makefile does for somebody who is new here: no more than is needed."""

import shutil
import subprocess
from pathlib import Path

from tests.docs.pages import ROOT


def told(folder: Path, *words: str) -> str:
    """What `make` would do in a fresh checkout."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def test_the_example_needs_what_a_user_needs(tmp_path: Path) -> None:
    """`make run` installs the proxy and Chainlit: no tool of those who develop it."""
    lines = told(tmp_path, "run").splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert [line.split()[-1] for line in installs] == ["'.[chainlit]'"]
    assert lines[-1].endswith("chainlit-proxy run app.py --replicas 2 --listen 127.0.0.1:8000")


def test_its_port_can_be_another(tmp_path: Path) -> None:
    """8000 may be taken."""
    assert told(tmp_path, "run", "PORT=8123").rstrip().endswith("--listen 127.0.0.1:8123")
