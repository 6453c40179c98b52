"""Which build runs: the interpreted package, or one whose hot modules were compiled from the same sources."""

from enum import StrEnum
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec


class Build(StrEnum):
    """As `--version`, the API and the metrics call it."""

    INTERPRETED = "interpreted"
    COMPILED = "compiled"


_HOT = "proxy.wire.head"  # one of those that a compiled wheel has as libraries


def _present() -> Build:
    """What Python loads, which is a library wherever one lies beside the source."""
    spec = find_spec(_HOT)
    origin = "" if spec is None or spec.origin is None else spec.origin
    return Build.COMPILED if origin.endswith(tuple(EXTENSION_SUFFIXES)) else Build.INTERPRETED


BUILD = _present()
