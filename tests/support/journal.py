"""What the instances of the test app wrote down, read back by the tests."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One event at one instance."""

    t: float  # seconds since the epoch
    instance: str
    kind: str  # start, end, message, action, block, http
    session: str
    details: dict[str, Any]


class Journal:
    """The file that all instances of one fleet append to; owned by the fleet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def entries(self, session: str | None = None, kind: str | None = None) -> list[Entry]:
        """The events so far, oldest first, of one session or kind if named."""
        found = []
        whole, _, _ = self.path.read_text().rpartition("\n")  # the last line may still be being written
        for line in whole.splitlines():
            raw = json.loads(line)
            entry = Entry(raw.pop("t"), raw.pop("instance"), raw.pop("kind"), raw.pop("session"), raw)
            if session in {None, entry.session} and kind in {None, entry.kind}:
                found.append(entry)
        return found

    def starts(self, session: str) -> list[str]:
        """The instances on which `on_chat_start` ran for the session, one name per run."""
        return [entry.instance for entry in self.entries(session, "start")]

    def places(self, sessions: set[str]) -> Counter[str]:
        """How many of the sessions started at which instance."""
        return Counter(entry.instance for entry in self.entries(kind="start") if entry.session in sessions)
