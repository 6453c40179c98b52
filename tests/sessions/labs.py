"""Asks the labs, which have the real Chainlit in a process of their own: no test imports it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]


def told_by(lab: str, folder: Path, *words: str, timeout: float = 100) -> Any:
    """What a file of `tests/support` prints last, as JSON, when it runs in a folder, within seconds."""
    done = subprocess.run(
        [sys.executable, TOP / "tests" / "support" / lab, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TOP), "CHAINLIT_APP_ROOT": str(folder)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
