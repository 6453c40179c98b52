"""The type of options that take a time, written as in the configuration."""

import json
from math import isfinite, nan
from typing import Any

import click

from proxy.units import Unit, seconds


class Seconds(click.ParamType[float]):
    """A time that ends."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click.ParamType."""
        read = seconds(value) if isinstance(value, str) else None
        try:
            number = float(value) if read is None else read
        except ValueError:
            number = nan
        if not isfinite(number) or number < 0:
            self.fail(
                f"must be {Unit.SECONDS.value}, 0 or greater (got {json.dumps(str(value))})", param, ctx
            )
        return number
