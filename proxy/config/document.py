"""A YAML text as plain data, with the place of every value and the mistakes that YAML itself shows.

Rules: a plain (unquoted) value is read for its type after its variables were replaced, by the core schema
of YAML 1.2, to which `yes`, `on` and 1_000 are added: 1:30 and 0400 are no numbers. Where the key takes
text, it stays as it was written. A section without content is an empty one. What could not be read is
`UNREADABLE`, and nobody complains about it again. No message repeats a piece of the text that may belong
to a secret.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from proxy.config.fields import Key, key_at, keys_below
from proxy.config.problems import KeyPath, Problem, key_text
from proxy.config.variables import hide, names_in, show, substitute

UNREADABLE: Final = object()
"""Stands for a value that a problem was reported for already; no type accepts it."""

COMMAND_LINE: Final = "command line"
"""The place of a problem of an option."""

MOST_VALUES: Final = 100_000
"""Values of a file after its aliases are expanded: far above any real one, far below what hurts."""

_TAG = "tag:yaml.org,2002:"
_WHOLE = "(?:0|[1-9][0-9_]*)"
_PLAIN = {  # the first that matches; YAML 1.2.2, 10.3.2
    "merge": "<<",
    "null": "~|null|Null|NULL|",
    "bool": "(?i:true|false|yes|no|on|off)",
    "int": f"[-+]?(?:{_WHOLE}|0x[0-9a-fA-F]+)",
    "float": rf"[-+]?(?:(?:{_WHOLE}\.?|(?:{_WHOLE})?\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\.(?i:inf))|\.(?i:nan)",
}

# What the parser says most, in words for whoever wrote the file.
_SYNTAX = {
    "alias": "an alias without its anchor; put a value that starts with * in quotes",
    "numeric character, but found ':'": (
        "* begins an alias in YAML: for every interface write 0.0.0.0:8000, else put the value in quotes"
    ),
    "alphabetic or numeric": "an alias without a name; put a value that starts with * or & in quotes",
    "mapping values are not allowed": 'the indentation is off, or a value that holds ": " needs quotes',
    "'\\t'": "a tab; YAML is indented with spaces",
    "unknown escape": "a \\ in double quotes; single quotes take it as it is",
    "sequence entries": "a list that begins behind its key; its first - needs a line of its own",
    "chomping or indentation": "a value that starts with > or | needs quotes",
    "expected URI": "a value that starts with ! needs quotes",
    "<document start>": "something behind the end; a value with { or [ or % needs quotes",
    "but found '<stream end>'": "a [ or { that is never closed",
    "cannot start any token": "a value that starts with @, % or ` needs quotes",
    "found ':'": 'a value that begins with : or [, as an IPv6 address, needs quotes: "[::]:8000"',
    "node content": "a comma, a ] or a } where a value belongs; in a value it needs quotes",
    "got '['": "a { without its }, or a comma is missing; a value with [ or ] needs quotes",
    "<block end>": "the indentation does not fit the lines above",
    "could not find expected ':'": "a key without its colon",
    "',' or '}'": "a { without its }, or a comma is missing",
    "',' or ']'": "a [ without its ], or a comma is missing",
    "end of stream": "a quote, bracket or brace that is never closed",
    "another document": "more than one document; a line of --- starts another",
    "for merging": "<< must be an alias of a mapping, or a list of them",
}


@dataclass(slots=True)
class Document:
    """What `read` found: `data` to be validated, and the file and line of each value of it."""

    file: str
    data: Any = UNREADABLE
    places: dict[KeyPath, tuple[str, int | None]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    secret_variables: set[str] = field(default_factory=set)  # those that secrets name, but for urls

    def put(self, values: Mapping[str, Any], *, option: bool = False) -> None:
        """Set values at keys such as "log.access" where the text has none.

        Those of an `option` of the command line win over the text, unless they are None.
        """
        for key, value in values.items():
            *above, name = path = tuple(key.split("."))
            section = self.data
            for part in above:
                section = section.setdefault(part, {}) if isinstance(section, dict) else None
            if not isinstance(section, dict) or (option and value is None):
                continue
            if option:
                section.pop(name, None)
                self.places = {at: place for at, place in self.places.items() if at[: len(path)] != path}
                self.places[path] = (COMMAND_LINE, None)
            section.setdefault(name, value)

    def report(self, path: KeyPath, message: str, line: int | None = None) -> None:
        """Add a problem; its line is that of the key or of the nearest section around it."""
        around = path
        while around not in self.places:
            around = around[:-1]
        file, known = self.places[around]
        self.problems.append(Problem(file, line or known, key_text(path), message))


def read(
    data: bytes | str,
    file: str,
    environ: Mapping[str, str],
    reshape: Callable[[yaml.Node], yaml.Node] = lambda node: node,
) -> Document:
    """Parse a text, its nodes as `reshape` returns them; what is wrong is in the document's `problems`."""
    document = Document(file, places={(): (file, 1)})
    text = ""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        reader = _Reader(text, document, environ)
        node = reader.get_single_node()
        document.data = {} if node is None else reader.value(reshape(node), (), 1)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        document.report((), "is not valid YAML: it is not UTF-8 text", line)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.report((), "is not valid YAML: it holds a control character", line)
    except yaml.MarkedYAMLError as error:
        document.report((), *_syntax(error))
    except RecursionError:
        document.report(
            (), f"holds over {MOST_VALUES} values, is nested too deeply, or an alias contains itself"
        )
    return document


class _Reader(yaml.SafeLoader):
    """One walk over the nodes of a text, for the document that it fills in."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - a class has its own

    def __init__(self, text: str, document: Document, environ: Mapping[str, str]) -> None:
        super().__init__(hide(text))
        self.document = document
        self.environ = environ
        self.merged = 0  # keys

    def value(self, node: yaml.Node, path: KeyPath, line: int) -> Any:
        """Return a node as plain data; `line` is where it or its key stands."""
        self._stop_growth()
        self.document.places[path] = (self.document.file, line)
        key = key_at(path)
        if node.tag and node.tag != self._tag(node, node.value):
            return self._unreadable(path, "must have no YAML tag; put a value that starts with ! in quotes")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, key)
        # What is below a secret is a part of it, and no message may name it; a list may be of secrets.
        is_open = key is None or not key.is_secret
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path) if is_open else {}
        is_open = is_open or (key is not None and key.takes_list and isinstance(path[-1], str))
        items = node.value if is_open else ()
        return [self.value(item, (*path, at), item.start_mark.line + 1) for at, item in enumerate(items)]

    def _tag(self, node: yaml.Node, text: Any) -> str:
        """The tag of a node that has none of its own; a scalar's goes by its text."""
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return str(self.resolve(type(node), text, (is_plain, True)))  # type: ignore[no-untyped-call]

    def _unreadable(self, path: KeyPath, *messages: str) -> object:
        for message in messages:
            self.document.report(path, message)
        return UNREADABLE

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, key: Key | None) -> Any:
        may_be_none = key is not None and key.is_secret and key.field.default is None
        written = show(node.value)
        text, wrong = substitute(written, self.environ, node.style, may_be_none=may_be_none)
        if wrong:
            return self._unreadable(path, *wrong)
        if key is not None and key.is_secret and "://" not in text:
            self.document.secret_variables.update(names_in(written))
        tag = self._tag(node, text)
        if tag == _TAG + "null":
            # A section without content, its keys all commented out, has its defaults.
            is_section = not path or (key is not None and key.section and isinstance(path[-1], str))
            return ([] if key and key.takes_list else {}) if is_section else None
        if (key and key.is_text) or tag not in {_TAG + name for name in ("bool", "int", "float")}:
            return text
        try:
            return self.construct_object(yaml.ScalarNode(tag, text))
        except ValueError:  # more digits than Python reads
            return text

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        own: dict[str, int] = {}
        pairs = []
        for key, value in node.value:
            line, name = key.start_mark.line + 1, str(key.value)
            if not isinstance(key, yaml.ScalarNode):
                message = "must have text as its keys; put a value that starts with { or [ in quotes"
                self.document.report(path, message, line)
            elif name in own and key.tag != _TAG + "merge":
                self.document.report((*path, show(name)), f"is given twice, first on line {own[name]}", line)
            else:
                own[name] = line
                pairs.append((key, value))
        node.value = pairs
        self.flatten_mapping(node)
        found = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, show(key.value)
            is_empty = isinstance(value, yaml.ScalarNode) and value.style is None and not value.value
            if node.flow_style and is_empty and name not in keys_below(path):
                # `{token: abc,def}`: the word is not named, it may be the rest of a secret.
                message = "holds a word without a value; put a value that holds a comma in quotes"
                self.document.report(path, message, line)
            else:
                found[name] = self.value(value, (*path, name), line)
        return found

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what `<<` names; a key that is there several times, the last one wins, counts once."""
        super().flatten_mapping(node)
        texts = (pair for pair in node.value if isinstance(pair[0], yaml.ScalarNode))
        node.value = list({key.value: (key, value) for key, value in texts}.values())
        self.merged += len(node.value)
        self._stop_growth()

    def _stop_growth(self) -> None:
        if len(self.document.places) + self.merged > MOST_VALUES:
            raise RecursionError


for _name, _pattern in _PLAIN.items():
    _Reader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)


def _syntax(error: yaml.MarkedYAMLError) -> tuple[str, int | None]:
    """Return what the parser found and its line, without the pieces of the text that it quotes."""
    problem = error.problem or "it cannot be parsed"
    begun_earlier = "end of stream" in problem or "could not find expected" in problem
    mark = (error.context_mark if begun_earlier else None) or error.problem_mark or error.context_mark
    # One character or the name of a token may stay, a word of the file may not.
    safe = re.sub(r"'([^']*)'", lambda m: m[0] if len(m[1]) < 2 or m[1][0] in "<\\" else "something", problem)
    plain = next((words for sign, words in _SYNTAX.items() if sign in problem), safe)
    return f"is not valid YAML: {plain}", mark.line + 1 if mark else None
