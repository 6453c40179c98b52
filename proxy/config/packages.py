"""The packages that only some need, and what is said where one is missing.

A message names the package itself: this project is on no index, so a requirement in its own name could not be
installed, or would bring what somebody else put there. The ranges are those of the extras in
`pyproject.toml`; a test compares both. `proxy/sessions` stands apart and names its own.
"""

import re
from collections.abc import Mapping
from typing import Final

OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {
    "chainlit": ("chainlit>=2.0,<3",),
    "acme": ("acme>=5,<6",),
    "redis": ("redis>=5,<9",),
    "terminal": ("rich>=14,<16",),
    "otel": ("opentelemetry-exporter-otlp-proto-http>=1.30,<2", "opentelemetry-sdk>=1.30,<2"),
    "dns": ("dnspython>=2.7,<3",),
    "docker": ("aiodocker>=0.24,<1",),
    "kubernetes": ("kubernetes_asyncio>=31,<40",),
}


def needs(extra: str) -> str:
    """What is missing, and the command that brings it."""
    requirements = OPTIONAL[extra]
    names = " and ".join(re.split("[<>=]", requirement)[0] for requirement in requirements)
    return f"needs the package{'s' if len(requirements) > 1 else ''} {names}: {install(extra)}"


def install(extra: str) -> str:
    """The command that brings the packages of an extra."""
    return "pip install " + " ".join(f"'{requirement}'" for requirement in OPTIONAL[extra])
