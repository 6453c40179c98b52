"""What containers may leave behind on a machine: mounts, network links and rules of the firewall."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

FIREWALLS = ("iptables", "ip6tables")


@dataclass(frozen=True, slots=True)
class Machine:
    """What is there at one moment."""

    mounts: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]

    @classmethod
    def now(cls) -> Self:
        """Read from the kernel."""
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        return cls(
            frozenset(line.split()[1] for line in mounts),
            frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            frozenset(_rules()),
        )

    def since(self, before: "Machine") -> list[str]:
        """The links and rules that were not there before, or are there no more, in words.

        Not the mounts: those of other engines come and go.
        """
        return [
            f"{kind} {name}"
            for kind, here, there in (
                ("link", self.links, before.links),
                ("rule", self.rules, before.rules),
            )
            for name in sorted(here ^ there)
        ]


def saved(firewall: str, *words: str) -> list[str]:
    """The lines of a firewall's rules and policies; none where it is not installed."""
    if (found := shutil.which(f"{firewall}-save")) is None:
        return []
    done = subprocess.run([found, *words], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.splitlines()


def _rules() -> list[str]:
    """Rules and policies of both families, without the counters.

    Not the policy to accept, which a chain has that was never used.
    """
    lines = [re.sub(r"\[\d+:\d+\]", "", line) for firewall in FIREWALLS for line in saved(firewall)]
    return [line for line in lines if re.match(r"-|:(?!\S+ ACCEPT)", line)]
