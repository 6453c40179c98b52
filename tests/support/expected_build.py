"""Whether the build that is to be tested is the one that runs."""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import hatch_build
import proxy
from proxy.build import BUILD


def mistakes(expected: str) -> list[str]:
    """What is otherwise than expected, `compiled` or `interpreted`: the package's word, and each module."""
    found = [] if expected == BUILD else [f"the package calls itself {BUILD}, not {expected}"]
    root = Path(proxy.__file__).parents[1]
    for module in hatch_build.compiled_modules(root):
        spec = find_spec(module)
        origin = "" if spec is None else str(spec.origin)
        if origin.endswith(tuple(EXTENSION_SUFFIXES)) is not (expected == "compiled"):
            found.append(f"{module} is {origin}")
    return found
