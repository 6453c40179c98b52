"""`discovery`: where backends are found that come and go without a reload."""

from typing import Any

from pydantic import Field

from proxy.config import values as v
from proxy.config.sections import Settings

SWITCHES = {"file": ""}
"""Each source, in the order in which their backends are taken, and the key of it that turns it on."""


class DiscoverySettings(Settings):
    """`discovery`: backends that come and go without a reload."""

    file: v.File = Field(
        default=None,
        description="A YAML or JSON file with more backends, a list of entries as those of `backends`, or in "
        "the form of Prometheus' file_sd. It is watched; a bad or empty one is logged, and the last good one "
        "stays.",
    )

    def parts(self) -> dict[str, object]:
        """What is configured of each source that is on, in the order in which their backends are taken."""
        parts = {name: getattr(self, name) for name in SWITCHES}
        return {name: part for name, part in parts.items() if is_on(name, part)}


def is_on(source: str, part: Any) -> bool:
    """Whether what stands at a source's key turns it on; it may be data that was not validated."""
    key = SWITCHES[source]
    if key:
        part = part.get(key) if isinstance(part, dict) else getattr(part, key, None)
    return part is not None
