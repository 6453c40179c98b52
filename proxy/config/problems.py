"""What is wrong with a configuration: one `Problem` per mistake, all of them in one `ConfigError`.

Rules: a problem is one line of text, names its place (file, line, key) and says what is allowed.
A value that was given is shown by `got`, which shortens it and never breaks the line; nobody calls
`got` for a field that holds a secret, and a url with a password at any other is not shown either.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Where a value stands in the file, such as ("backends", 1, "url")."""

SHOWN = 60
"""Characters of a given value or key that a message shows: enough to find it, and it stays one line."""

_TYPE_NAMES = {str: "text", bool: "true or false", dict: "a mapping", list: "a list", tuple: "a list"}
_MOST_BITS = 10_000  # of a whole number that Python writes in decimal: it refuses to beyond 4300 digits
_PASSWORD = re.compile(r"://[^/\s]*@")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake and its place; `line` counts from 1 and is None where there is no line to name."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        """Return `file:line: key: message`, without the parts that are not known."""
        file = "standard input" if self.file == "-" else self.file
        place = file if self.line is None else f"{file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` are all its mistakes, in the order of their lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def got(value: object) -> str:
    """Return ` (got ...)` for the end of a message."""
    if isinstance(value, str) and not _PASSWORD.search(value):
        return f" (got {quoted(value)})"
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f" (got {_short(hex(value))})"
    return f" (got {_short(str(value).lower())})" if isinstance(value, int | float) else got_type(value)


def got_type(value: object) -> str:
    """Return ` (got ...)` without the value, for places where it may hold anything."""
    if value is None:
        return " (got nothing)"
    return f" (got {_TYPE_NAMES.get(type(value), 'a number')})"


def quoted(text: str) -> str:
    """Return `text` in double quotes, shortened, with everything escaped that would break the line."""
    return json.dumps(_short(text), ensure_ascii=not text.isprintable())


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def key_text(path: KeyPath) -> str:
    """Return a path as the messages write it: `backends[1].url`."""
    names = (part if isinstance(part, int) or _PLAIN_KEY.fullmatch(part) else quoted(part) for part in path)
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")
