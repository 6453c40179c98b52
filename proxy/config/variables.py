"""`${NAME}` in the values of a YAML text.

Rules: `${NAME}` is the value of an environment variable that is set and not empty, `${NAME:-default}`
has a default for both cases, `$${` is a plain `${`. They are replaced after YAML was parsed, so that
no value can add a key. YAML would take the braces of one in `{token: ${TOKEN}}` for its own, so they
are hidden from the parser: `Shield` swaps the characters of each for others, one for one, and back.
"""

import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|\$\{")

# What could be a variable. A backslash or a quote means something else to YAML, so it sees those.
_SHIELDED = re.compile(r"""\$\{[^{}\n"'\\]*\}""")
_ASCII = range(0x20, 0x7F)
_PRIVATE_USE = range(0xE000, 0xF8FF, 0x80)  # no character of any language, and YAML allows it


class Shield:
    """The swap for one text, made by whoever parses it; it keeps every line and column in place."""

    def __init__(self, text: str) -> None:
        used = {ord(character) for character in set(text)}
        start = next(
            (start for start in _PRIVATE_USE if not used.intersection(range(start, start + 0x80))),
            _PRIVATE_USE[0],
        )
        hidden = {code: start + code for code in _ASCII}
        self._shown = {other: code for code, other in hidden.items()}
        self.text = _SHIELDED.sub(lambda match: match[0].translate(hidden), text)

    def restore(self, text: str) -> str:
        """Return a part of the parsed text as it was written."""
        return text.translate(self._shown)


def substitute(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return `text` with its variables replaced, and what is wrong with each that could not be."""
    wrong = []

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match[0] == "$${":
            return "${"
        if name is None:
            wrong.append("must write a variable as ${NAME} or ${NAME:-default}, and a plain ${ as $${")
            return ""
        if value := environ.get(name):
            return value
        if default is None:
            state = "empty" if name in environ else "not set"
            wrong.append(f"environment variable {name} is {state}; ${{{name}:-...}} gives a default")
            return ""
        return default.removeprefix(":-")

    return _VARIABLE.sub(replace, text), wrong
