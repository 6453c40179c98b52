"""A YAML text as plain data, with the line of every key and the mistakes that YAML itself shows.

Rules: a plain (unquoted) value is read for its type after its variables were replaced. Where the key
takes text, a number or a date stays as it was written. A section without content is an empty one.
What could not be read is `UNREADABLE`, and nobody complains about it again. No message repeats a
piece of the text that may belong to a secret.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from proxy.config.fields import Kind, key_at, keys_below, takes_list
from proxy.config.problems import KeyPath, Problem, key_text
from proxy.config.variables import Shield, substitute

UNREADABLE: Final = object()
"""Stands for a value that a problem was reported for already; no type accepts it."""

Reshape = Callable[[yaml.Node], yaml.Node]

COMMAND_LINE: Final = "command line"
"""The place of a problem of an option."""

MOST_VALUES: Final = 100_000
"""Values of a file after its aliases are expanded: far above any real one, far below what hurts."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")}
_TYPED = {_TAG + name for name in ("int", "float", "bool")}

# What the parser says most, in words for whoever wrote the file.
_SYNTAX = {
    "alias": "an alias without its anchor; put a value that starts with * in quotes",
    "mapping values are not allowed": 'the indentation is off, or a value that holds ": " needs quotes',
    "'\\t'": "a tab; YAML is indented with spaces",
    "<block end>": "the indentation does not fit the lines above",
    "could not find expected ':'": "a key without its colon",
    "',' or '}'": "a { without its }, or a comma is missing",
    "',' or ']'": "a [ without its ], or a comma is missing",
    "end of stream": "a quote, bracket or brace that is never closed",
    "another document": "more than one document; a line of --- starts another",
}


@dataclass(slots=True)
class Document:
    """What `read` found: `data` to be validated, and where each value of it stands."""

    file: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    quoted: set[KeyPath] = field(default_factory=set)
    unreadable: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    replaced: set[KeyPath] = field(default_factory=set)  # by the command line

    def complete(self, defaults: Mapping[str, Any]) -> None:
        """Put values at keys such as "log.access" where the text has none."""
        for key, value in defaults.items():
            section, name = self._section_of(key)
            if section is not None:
                section.setdefault(name, value)

    def replace(self, changes: Mapping[str, Any]) -> None:
        """Put values of the command line at keys such as "admin.listen", but not those that are None."""
        for key, value in changes.items():
            section, name = self._section_of(key)
            if section is not None and value is not None:
                section[name] = value
                self.replaced.add(tuple(key.split(".")))

    def _section_of(self, key: str) -> tuple[dict[str, Any] | None, str]:
        """The section of a key, made where it is missing, and its name there; None if no section is there."""
        *sections, name = key.split(".")
        section = self.data
        for part in sections:
            section = section.setdefault(part, {}) if isinstance(section, dict) else None
        return (section if isinstance(section, dict) else None), name

    def report(self, path: KeyPath, message: str, line: int | None = None) -> None:
        """Add a problem; its line is that of the key or of the nearest section around it."""
        if any(path[: len(key)] == key for key in self.replaced):
            problem = Problem(COMMAND_LINE, None, key_text(path), message)
        else:
            problem = Problem(self.file, line or self._line_of(path), key_text(path), message)
        self.problems.append(problem)

    def is_unreadable(self, path: KeyPath) -> bool:
        """Return whether the value at `path`, or one around it, was reported already."""
        return any(path[:depth] in self.unreadable for depth in range(len(path) + 1))

    def _line_of(self, path: KeyPath) -> int | None:
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def read(text: str, file: str, environ: Mapping[str, str], reshape: Reshape = lambda node: node) -> Document:
    """Parse `text`, its nodes as `reshape` returns them; what is wrong is in the document's `problems`."""
    document = Document(file, data=UNREADABLE, lines={(): 1})
    try:
        document.data = _Reader(document, environ, text, reshape).read()
    except yaml.MarkedYAMLError as error:
        document.report((), *_syntax(error))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.report((), "is not valid YAML: it holds a control character", line)
    except (RecursionError, _TooManyValuesError):
        document.report((), "is nested too deeply, or an alias in it contains itself")
    if document.data is UNREADABLE:
        document.unreadable.add(())
    return document


class _TooManyValuesError(Exception):
    """The aliases of the file expand to more than `MOST_VALUES`."""


class _Reader:
    """One walk over the nodes of a document, which it fills in."""

    def __init__(self, document: Document, environ: Mapping[str, str], text: str, reshape: Reshape) -> None:
        self.document = document
        self.environ = environ
        self.reshape = reshape
        self.shield = Shield(text)
        self.loader = yaml.SafeLoader(self.shield.text)
        self.left = MOST_VALUES

    def read(self) -> Any:
        """Return the whole text as plain data."""
        try:
            node = self.loader.get_single_node()
            return {} if node is None else self._value(self.reshape(node), ())
        finally:
            self.loader.dispose()

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        key = key_at(path)
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            # What is below a secret is a part of it, and no message may name it; a list may be of secrets.
            is_hidden = key and key.kind is Kind.SECRET and (isinstance(path[-1], int) or not takes_list(key))
            return [] if is_hidden else self._list(node, path)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return {} if key and key.kind is Kind.SECRET else self._mapping(node, path)
        return self._unreadable(path, "must have no YAML tag; put a value that starts with ! in quotes")

    def _unreadable(self, path: KeyPath, *messages: str) -> object:
        for message in messages:
            self.document.report(path, message)
        self.document.unreadable.add(path)
        return UNREADABLE

    def _list(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        items = []
        for index, child in enumerate(node.value):
            self._count()
            self.document.lines[*path, index] = child.start_mark.line + 1
            items.append(self._value(child, (*path, index)))
        return items

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value, merged in self._pairs(node, path):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                message = "must have text as its keys; put a value that starts with { or [ in quotes"
                self.document.report(path, message, line)
                continue
            name = self.shield.restore(key.value)
            if node.flow_style and _is_empty(value) and name not in keys_below(path):
                # `{token: abc,def}`: the word is not named, it may be the rest of a secret.
                message = "holds a word without a value; put a value that holds a comma in quotes"
                self.document.report(path, message, line)
                continue
            place = (*path, name)
            if name not in found:
                self.document.lines[place] = line
                found[name] = self._value(value, place)
            elif not merged:
                self.document.report(
                    place, f"is given twice, first on line {self.document.lines[place]}", line
                )
        return found

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Yield key, value and whether it was merged: a mapping's own keys, then those of each `<<`."""
        merges: list[yaml.Node] = []
        for key, value in node.value:
            self._count()
            if key.tag == _TAG + "merge":
                merges += value.value if isinstance(value, yaml.SequenceNode) else [value]
            else:
                yield key, value, False
        for source in merges:
            if isinstance(source, yaml.MappingNode):
                yield from ((key, value, True) for key, value, _ in self._pairs(source, path))
            else:
                line = source.start_mark.line + 1
                self.document.report((*path, "<<"), "must be an alias of a mapping, or a list of them", line)

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        written = self.shield.restore(node.value)
        text, wrong = substitute(written, self.environ)
        if wrong:
            return self._unreadable(path, *wrong)
        tag = node.tag
        if node.style is not None:
            self.document.quoted.add(path)
        elif text != written:
            tag = self.loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        if tag == _TAG + "null":
            return _nothing(path)
        key = key_at(path)
        takes_text = key is not None and key.kind in {Kind.TEXT, Kind.SECRET}
        return self._typed(tag, text) if tag in _TYPED and not takes_text else text

    def _typed(self, tag: str, text: str) -> Any:
        try:
            return self.loader.construct_object(yaml.ScalarNode(tag, text))
        except (ValueError, LookupError, ArithmeticError):
            return text  # such as !!int abc; the type of the field will say what it has to be

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _TooManyValuesError


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and not node.value


def _nothing(path: KeyPath) -> Any:
    """Return what an empty value means: a section whose keys are all commented out has its defaults."""
    key = key_at(path)
    is_item = bool(path) and isinstance(path[-1], int)
    if not path or (key and key.kind is Kind.SECTION):
        return {}
    return [] if key and key.kind is Kind.SECTIONS and not is_item else None


def _syntax(error: yaml.MarkedYAMLError) -> tuple[str, int | None]:
    """Return what the parser found and its line, without the pieces of the text that it quotes."""
    problem = error.problem or "it cannot be parsed"
    begun_earlier = "end of stream" in problem or "could not find expected" in problem
    mark = (error.context_mark if begun_earlier else None) or error.problem_mark or error.context_mark
    # One character or the name of a token may stay, a word of the file may not.
    safe = re.sub(r"'([^']*)'", lambda m: m[0] if len(m[1]) < 2 or m[1][0] in "<\\" else "something", problem)
    plain = next((words for sign, words in _SYNTAX.items() if sign in problem), safe)
    return f"is not valid YAML: {plain}", mark.line + 1 if mark else None
