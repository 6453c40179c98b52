"""Stands for the libraries of which Chainlit makes elements, as plotly; none of them is installed."""

import sys
import types
from typing import Any


class Figure:
    """Stands for the figures of plotly and matplotlib, which are not installed."""

    def __init__(self) -> None:
        self.layout = types.SimpleNamespace()

    def savefig(self, file: Any, **_: Any) -> None:
        """As matplotlib."""
        file.write(b"a plot")


class DataFrame:
    """Stands for that of pandas."""

    def to_json(self, **_: Any) -> str:
        """As pandas."""
        return '{"data":[]}'


def stand_in() -> None:
    """Makes modules of the libraries that some elements ask for."""
    figures = {"Figure": Figure, "DataFrame": DataFrame, "to_json": lambda *_, **__: '{"data":[]}'}
    for name in ("plotly", "plotly.graph_objects", "plotly.io", "matplotlib", "matplotlib.figure", "pandas"):
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(figures)
    vars(sys.modules["plotly"]).update(
        graph_objects=sys.modules["plotly.graph_objects"], io=sys.modules["plotly.io"]
    )
