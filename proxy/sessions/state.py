"""What a session is, as one JSON text with a version.

Made from plain values and turned into plain values; what of Chainlit they come from is for `chat`. A value, a
message or an element that cannot be stored or read again costs itself only: it is counted, and the process
warns once of each.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .codecs import CODECS, Unstorable

VERSION = 1
LARGEST = 8 * 1024 * 1024  # characters of one state: ten times what Chainlit itself puts into a thread
TAKEN, BROUGHT = "is not shared", "is not restored"  # what a warning says on the way out, and back
KEY, SETTING, FILE = "cl.user_session[{!r}]", "the chat setting {!r}", "the entry of a file"

log = logging.getLogger("chainlit_proxy.sessions")
_warned: set[str] = set()


class Unreadable(ValueError):  # noqa: N818 - it is an answer, not a fault
    """A text that this version cannot read."""


def keep(dropped: list[str], what: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """What `make` returns; None where it fails, which is added to `dropped`."""
    try:
        return make(*arguments)
    except Exception as reason:  # an app's values, and what Chainlit makes of them
        dropped.append(what)
        if what not in _warned:
            _warned.add(what)
            log.warning("%s: %s", what, reason)
        return None


def keep_each(dropped: list[str], what: str, make: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    """As `keep` for each value; what fails is not in the list."""
    kept = [keep(dropped, what, make, value) for value in values]
    return [each for each in kept if each is not None]


@dataclass(slots=True)
class State:
    """The state of one session after a finished turn."""

    thread_id: str
    first_interaction: bool  # whether the user has said something
    chat_profile: str | None
    chat_settings: dict[str, Any]
    user_session: dict[str, Any]
    messages: list[dict[str, Any]]  # the chat context, each as Chainlit's own dict, with `elements`
    files: dict[str, dict[str, Any]]  # by Chainlit's file id: name, type, size, and where it is
    said: list[str] = field(default_factory=list)  # marks of what the client said last and was taken
    dropped: list[str] = field(default_factory=list)  # what was lost in this process; not stored

    def to_text(self) -> tuple[str, int]:
        """The text, and how many values were left out. Raises Unstorable if it is too long."""
        data = {name: getattr(self, name) for name in ("thread_id", "first_interaction", "chat_profile")}
        data |= {
            "version": VERSION,
            "said": self.said,
            "files": self._each(f"{FILE} {TAKEN}", _file, self.files),
        }
        data["chat_settings"] = self._each(f"{SETTING} {TAKEN}", _as_sent, self.chat_settings)
        data["user_session"] = self._each(f"{KEY} {TAKEN}", CODECS.encode, self.user_session)
        data["messages"] = self._messages(TAKEN, _as_sent, self.messages)
        text = json.dumps(data, separators=(",", ":"))
        if len(text) > LARGEST:
            raise Unstorable(
                f"a session of {len(text)} characters is too large, at most {LARGEST} are shared"
            )
        return text, len(self.dropped)

    @classmethod
    def from_text(cls, text: str) -> "State":
        """Reads what `to_text` wrote. Raises Unreadable."""
        decode = CODECS.decode
        try:
            data = json.loads(text)
            if (version := data["version"]) != VERSION:
                raise Unreadable(f"it has version {version}, and this instance reads version {VERSION}")
            thread_id, profile = data["thread_id"], data["chat_profile"]
            state = cls(thread_id, data["first_interaction"], profile, {}, {}, [], {})
            state.said = [str(mark) for mark in data.get("said", ())]  # older ones have none
            state.files = state._each(f"{FILE} {BROUGHT}", _file, data["files"])
            state.chat_settings = state._each(f"{SETTING} {BROUGHT}", decode, data["chat_settings"])
            state.user_session = state._each(f"{KEY} {BROUGHT}", decode, data["user_session"])
            state.messages = state._messages(BROUGHT, decode, data["messages"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Unreadable(str(error)) from error
        return state

    def _each(self, what: str, convert: Callable[[Any], Any], values: dict[str, Any]) -> dict[str, Any]:
        def pair(key: str, value: Any) -> tuple[str, Any]:
            return str.__str__(key), convert(value)  # no other key is the same one afterwards

        items = list(values.items())  # at once: a thread of the app may change it
        kept = [keep(self.dropped, what.format(key), pair, key, value) for key, value in items]
        return dict(each for each in kept if each is not None)

    def _messages(self, how: str, convert: Callable[[Any], Any], messages: list[Any]) -> list[Any]:
        def one(message: dict[str, Any]) -> dict[str, Any]:
            whole = {key: value for key, value in message.items() if key not in ("metadata", "elements")}
            metadata = keep(self.dropped, f"the metadata of a message {how}", convert, message["metadata"])
            elements = keep_each(self.dropped, f"an element {how}", convert, message["elements"])
            return {**convert(whole), "metadata": metadata or {}, "elements": elements}

        return keep_each(self.dropped, f"a message {how}", one, messages)


def _file(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of a file as it is stored, where `file` is the name on disk that Chainlit gave it."""
    name = Path(entry["path"] if "path" in entry else entry["file"]).name
    if name in ("", ".."):
        raise ValueError("it has no name")
    kept = {"name": entry["name"], "type": entry["type"], "size": entry["size"], "file": name}
    json.dumps(kept)
    return kept


def _as_sent(value: Any) -> Any:
    """Encodes what Chainlit sends to the page; what JSON alone can write, like a StrEnum, as it is read."""
    try:
        return CODECS.encode(value)
    except Unstorable:
        return CODECS.encode(json.loads(json.dumps(value)))
