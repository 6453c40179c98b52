"""A bounded run of the fuzzer over each parser; `make fuzz` runs it for longer."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import SEEDS, TARGETS

TOP = Path(__file__).parents[2]
RUNS = 10_000
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform"
)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_hold(name: str) -> None:
    """What a fuzzer starts from is understood, cut at every place."""
    for seed in SEEDS[name]:
        for end in range(len(seed) + 1):
            TARGETS[name](seed[:end])


@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_parsers_hold_for_any_bytes(name: str, tmp_path: Path) -> None:
    """Some thousand inputs, found by coverage from a fixed seed, break no parser."""
    command = [sys.executable, "-m", "tests.fuzz", name, str(tmp_path / "corpus")]
    options = [f"-runs={RUNS}", "-seed=1", "-max_len=2048", "-timeout=10"]
    done = subprocess.run([*command, *options], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"stat::number_of_executed_units: {RUNS}" in done.stderr
