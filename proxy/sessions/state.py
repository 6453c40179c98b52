"""What a session is, as one JSON text with a version.

Made from plain values and turned into plain values; what of Chainlit they come from is for `hooks`. Values of
`cl.user_session` that cannot be stored are left out, each key with one warning for the whole process.
"""

import json
import logging
from dataclasses import dataclass, field
from typing import Any

from .codecs import CODECS, Unstorable

VERSION = 1
LARGEST = 8 * 1024 * 1024  # characters of one state: ten times what Chainlit itself puts into a thread

log = logging.getLogger("chainlit_proxy.sessions")
_warned: set[str] = set()


class Unreadable(ValueError):  # noqa: N818 - it is an answer, not a fault
    """A text that this version cannot read."""


@dataclass(slots=True)
class State:
    """The state of one session after a finished turn."""

    thread_id: str
    first_interaction: bool  # whether the user has said something
    chat_profile: str | None
    chat_settings: dict[str, Any]
    user_session: dict[str, Any]
    messages: list[dict[str, Any]]  # the chat context, each as Chainlit's own dict, with `elements`
    files: dict[str, dict[str, Any]]  # by Chainlit's file id: name, type, size, and `file`, its name on disk
    dropped: list[str] = field(default_factory=list)  # keys of user_session that could not be stored

    def to_text(self) -> tuple[str, int]:
        """The text, and how many values were left out. Raises Unstorable if it is too long."""
        kept: dict[str, Any] = {}
        dropped = []
        for key, value in self.user_session.items():
            try:
                kept[str(key)] = CODECS.encode(value)
            except Unstorable as reason:
                dropped.append(str(key))
                _warn(f"cl.user_session[{key!r}] is not shared", reason)
        data = {name: getattr(self, name) for name in ("thread_id", "first_interaction", "chat_profile")}
        data |= {"user_session": kept, "files": self.files, "dropped": dropped, "version": VERSION}
        data["chat_settings"] = _or_nothing("the chat settings are not shared", self.chat_settings, {})
        data["messages"] = [
            _or_nothing("the metadata of a message is not shared", message, message | {"metadata": {}})
            for message in self.messages
        ]
        text = json.dumps(data, separators=(",", ":"))
        if len(text) > LARGEST:
            raise Unstorable(
                f"a session of {len(text)} characters is too large, at most {LARGEST} are shared"
            )
        return text, len(dropped)

    @classmethod
    def from_text(cls, text: str) -> "State":
        """Reads what `to_text` wrote. Raises Unreadable."""
        try:
            data = json.loads(text)
            version = data.pop("version")
            if version != VERSION:
                raise Unreadable(f"it has version {version}, and this instance reads version {VERSION}")
            stored = data.pop("user_session")
            data["chat_settings"] = CODECS.decode(data["chat_settings"])
            data["messages"] = CODECS.decode(data["messages"])
            state = cls(user_session={}, **data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unreadable(str(error)) from error
        for key, value in stored.items():
            try:
                state.user_session[key] = CODECS.decode(value)
            except Unstorable as reason:
                state.dropped.append(key)
                _warn(f"cl.user_session[{key!r}] is not restored", reason)
        return state


def _or_nothing(what: str, value: Any, instead: Any) -> Any:
    try:
        return CODECS.encode(value)
    except Unstorable as reason:
        _warn(what, reason)
        return CODECS.encode(instead)


def _warn(what: str, reason: Unstorable) -> None:
    if what not in _warned:
        _warned.add(what)
        log.warning("%s: %s", what, reason)
