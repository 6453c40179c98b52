"""What is used of Chainlit: what it exports, and one of its sessions as `sharing` sees it.

`find` looks for every name that is used here and in `hooks`, and raises `Unknown` where one is missing or
different, so that a Chainlit which nobody has tried runs as it would without us.
"""

import importlib
import importlib.metadata
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .state import State

NAMES = {
    "chainlit.server": ("sio",),
    "chainlit.session": ("WebsocketSession", "HTTPSession"),
    "chainlit.user_session": ("user_sessions",),
    "chainlit.chat_context": ("chat_contexts",),
    "chainlit.message": ("Message",),
    "chainlit.element": ("Element",),
    "chainlit.config": ("config",),
    "chainlit.context": ("init_ws_context", "context"),
}
EVENTS = ("connect", "connection_successful", "client_message", "edit_message", "disconnect")
ATTRIBUTES = (
    *("id", "user", "thread_id", "has_first_interaction", "chat_profile", "chat_settings"),
    *("files", "files_dir", "current_task", "thread_id_to_resume"),
)
# What `cl.user_session` copies from the session at each look; env holds the user's keys: they are not stored.
COPIED = {"id", "env", "user", "chat_settings", "chat_profile", "client_type"}


class Unknown(Exception):  # noqa: N818 - it is an answer, not a fault
    """This Chainlit is not one that we know; the text says what is different."""


def find() -> dict[str, Any]:
    """Everything in NAMES, by its last name. Raises Unknown."""
    version = importlib.metadata.version("chainlit")
    if version.partition(".")[0] != "2":
        raise Unknown(f"Chainlit {version} is not known, only 2.x is")
    found: dict[str, Any] = {}
    for module, names in NAMES.items():
        for name in names:
            try:
                found[name] = getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError):
                raise Unknown(f"Chainlit {version} has no {module}.{name}") from None
    handlers = getattr(found["sio"], "handlers", {}).get("/", {})
    missing = [event for event in EVENTS if not inspect.iscoroutinefunction(handlers.get(event))]
    if missing:
        raise Unknown(f"Chainlit {version} handles no {', '.join(missing)}")
    session = found["HTTPSession"](id="probe", client_type="webapp")
    missing = [name for name in ATTRIBUTES if not hasattr(session, name)]
    missing += [
        name for name in ("get", "get_by_id", "restore") if not hasattr(found["WebsocketSession"], name)
    ]
    missing += [] if hasattr(found["Message"], "to_dict") else ["Message.to_dict"]
    if missing or not hasattr(found["config"].project, "session_timeout"):
        raise Unknown(f"Chainlit {version} has no {', '.join(missing) or 'session_timeout'}")
    return found


@dataclass(slots=True)
class ChainlitChat:
    """See `sharing.Chat`."""

    session: Any
    names: dict[str, Any]

    @property
    def id(self) -> str:
        """The session's id, which the page made."""
        return str(self.session.id)

    @property
    def owner(self) -> str:
        """Nobody in particular, or the user that is logged in."""
        user = self.session.user
        return "" if user is None else f"={user.identifier}"

    def state(self) -> tuple[str, int]:
        """Its state as text."""
        session, names = self.session, self.names
        kept = names["user_sessions"].get(session.id) or {}
        state = State(
            thread_id=session.thread_id,
            first_interaction=session.has_first_interaction,
            chat_profile=session.chat_profile,
            chat_settings=session.chat_settings,
            user_session={key: value for key, value in kept.items() if key not in COPIED},
            messages=[message_data(message) for message in names["chat_contexts"].get(session.id, ())],
            files={
                key: {"name": file["name"], "type": file["type"], "size": file["size"]}
                | {"file": Path(file["path"]).name}
                for key, file in session.files.items()
            },
        )
        return state.to_text()

    def files(self) -> list[Path]:
        """Its files on this instance's disk."""
        return [Path(file["path"]) for file in self.session.files.values()]

    def abandon(self) -> None:
        """Ends what runs in it."""
        if self.session.current_task is not None:
            self.session.current_task.cancel()

    def is_alive(self) -> bool:
        """Whether Chainlit still has it."""
        return self.names["WebsocketSession"].get_by_id(self.id) is self.session

    def restore(self, state: State) -> None:
        """Makes the session what it was elsewhere; its files are brought first, see `expected`."""
        session, names = self.session, self.names
        names["init_ws_context"](session)  # elements ask it for their thread
        session.restored = session.chat_started = True
        session.thread_id_to_resume = None
        session.thread_id = state.thread_id
        session.has_first_interaction = state.first_interaction
        session.chat_profile, session.chat_settings = state.chat_profile, state.chat_settings
        names["user_sessions"][session.id] = state.user_session
        session.files = {
            key: {"id": key, "name": file["name"], "type": file["type"], "size": file["size"], "path": path}
            for (key, file), path in zip(state.files.items(), self.expected(state), strict=True)
            if path.is_file()
        }
        names["chat_contexts"][session.id] = [self._message(message) for message in state.messages]

    def expected(self, state: State) -> list[Path]:
        """Where Chainlit looks for the files of a state."""
        return [self.session.files_dir / Path(file["file"]).name for file in state.files.values()]

    def _message(self, data: dict[str, Any]) -> Any:
        message = made(self.names["Message"], data)
        for element in data["elements"]:
            file = self.session.files.get(element.get("chainlitKey"))
            if file is not None:
                element["path"] = str(file["path"])
            if file is not None or element.get("url"):
                message.elements.append(self.names["Element"].from_dict(element))
        return message


def made(kind: type, data: dict[str, Any]) -> Any:
    """A message as it was; not by its constructor, which sleeps a millisecond and needs a running turn."""
    message: Any = object.__new__(kind)
    own = {"author": data["name"], "content": data["output"], "is_error": bool(data.get("isError"))}
    own |= {"thread_id": data.get("threadId"), "parent_id": data.get("parentId")}
    own |= {"created_at": data.get("createdAt"), "wait_for_answer": bool(data.get("waitForAnswer"))}
    same = ("id", "type", "command", "modes", "language", "metadata", "tags")
    own |= {name: data.get(name) for name in same}
    vars(message).update(own, streaming=False, persisted=True, actions=[], elements=[])
    return message


def message_data(message: Any) -> dict[str, Any]:
    """A message with its elements, as it is stored."""
    elements = [element.to_dict() for element in getattr(message, "elements", None) or ()]
    return {**message.to_dict(), "elements": elements}
