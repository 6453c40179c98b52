"""`${NAME}` in the values of a YAML text.

Rules: `${NAME}` is the value of an environment variable that is set and not empty, `${NAME:-default}`
has a default for both cases, `$${` is a plain `${`. `$NAME` is no variable and was hardly meant as it is,
so it is refused outside of single quotes. They are replaced after YAML was parsed, so that no value can
add a key. YAML would take the braces of one in `{token: ${TOKEN}}` for its own, so `hide` puts characters
in their place that no text has (private use), one for one, and `show` puts them back.
"""

import re
from collections.abc import Iterator, Mapping

_VARIABLE = re.compile(
    r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|(?P<broken>\$\{)"
    r"|^\$(?P<whole>[A-Za-z_][A-Za-z0-9_]*)$|(?<!\$)\$(?P<part>[A-Z][A-Z0-9_]+)(?![A-Za-z0-9_])"
)
# What could be a variable. A backslash or a quote means something else to YAML, so it sees those.
_HIDDEN = re.compile(r"""\$\{[^{}\n"'\\]*\}""")
_HIDE = {code: 0xF0000 + code for code in range(0x20, 0x7F)}
_SHOW = {hidden: code for code, hidden in _HIDE.items()}


def hide(text: str) -> str:
    """Return a text for the parser; every line and column is where it was."""
    return _HIDDEN.sub(lambda match: match[0].translate(_HIDE), text)


def show(text: str) -> str:
    """Return a part of the parsed text as it was written."""
    return text.translate(_SHOW)


def names_in(text: str) -> Iterator[str]:
    """Yield the variables that a text names."""
    return (match["name"] for match in _VARIABLE.finditer(text) if match["name"])


def substitute(
    text: str, environ: Mapping[str, str], style: str | None, *, may_be_none: bool = False
) -> tuple[str, list[str]]:
    """Return `text` with its variables replaced, and what is wrong with each that could not be.

    `style` is the quote that the text stands in, None for none. A secret that `may_be_none` is better left
    out than written into the file.
    """
    wrong = []

    def replace(match: re.Match[str]) -> str:
        name, default, bare = match["name"], match["default"], match["whole"] or match["part"]
        if match[0] == "$${":
            return "${"
        if bare is not None:
            if style not in {None, '"'}:
                return match[0]
            # It is not named where it may be a piece of a secret.
            known = bare if bare in environ or (match["whole"] and bare.isupper()) else "NAME"
            wrong.append(f"must write a variable as ${{{known}}}; in single quotes a $ is only a $")
            return ""
        if match["broken"]:
            wrong.append("must write a variable as ${NAME} or ${NAME:-default}, and a plain ${ as $${")
            return ""
        if value := environ.get(name):
            return value
        if default is None:
            state = "empty" if name in environ else "not set"
            instead = f"${{{name}:-}} for none" if may_be_none else f"${{{name}:-...}} with a default"
            wrong.append(f"environment variable {name} is {state}: export it, or write {instead}")
            return ""
        return default.removeprefix(":-")

    return _VARIABLE.sub(replace, text), wrong
