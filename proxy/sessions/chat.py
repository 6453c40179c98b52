"""What is used of Chainlit: what it exports, and one of its sessions as `sharing` sees it.

`find` looks for every name that is used here and in `hooks`, and tries them: a session is restored, looked at
as an app does it, and taken down again. It raises `Unknown` where something is missing or does not come back,
so that a Chainlit which nobody has tried runs as it would without us.

Messages and elements are made again from what their `to_dict` shows, not by their constructors: those need a
running turn, that of a message sleeps a millisecond, and those of some elements want a figure or a table.
"""

import contextvars
import importlib
import importlib.metadata
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .codecs import Unstorable
from .state import BROUGHT, FILE, TAKEN, State, keep_each

NAMES = {
    "chainlit.server": ("sio",),
    "chainlit.session": ("WebsocketSession", "HTTPSession", "ws_sessions_sid", "ws_sessions_id"),
    "chainlit.user_session": ("user_sessions", "user_session"),
    "chainlit.chat_context": ("chat_contexts", "chat_context"),
    "chainlit.message": ("Message",),
    "chainlit.element": ("Element",),
    "chainlit.config": ("config",),
    "chainlit.context": ("init_ws_context", "context", "context_var"),
}
EVENTS = ("connect", "connection_successful", "client_message", "edit_message", "disconnect")
ATTRIBUTES = (
    *("id", "user", "thread_id", "has_first_interaction", "chat_profile", "chat_settings"),
    *("files", "files_dir", "current_task", "thread_id_to_resume"),
)
METHODS = ("get", "get_by_id", "restore")
# What `cl.user_session` copies from the session at each look; env holds the user's keys: they are not stored.
COPIED = {"id", "env", "user", "chat_settings", "chat_profile", "client_type"}
# What messages and elements show in any Chainlit 2.x, but not what follows from the rest.
MESSAGE = "id threadId parentId createdAt output name type language isError waitForAnswer metadata tags"
ELEMENT = "id threadId forId type url chainlitKey objectKey name display size mime language page props"
DERIVED = {"start", "end", "streaming"}


class Unknown(Exception):  # noqa: N818 - it is an answer, not a fault
    """This Chainlit is not one that we know; the text says what is different."""


def find() -> dict[str, Any]:
    """Everything in NAMES, by its last name, and the `kinds` of elements. Raises Unknown."""
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
    try:
        contextvars.copy_context().run(_try, found)
    except Exception as error:
        told = str(error) if isinstance(error, Unknown) else f"a session cannot be restored: {error!r}"
        raise Unknown(f"Chainlit {version}: {' '.join(told.split())}") from error
    return found


def _try(names: dict[str, Any]) -> None:
    """Restores a session, looks at it as an app does, and takes it down again. Raises Unknown."""
    session, element = names["HTTPSession"](id="probe", client_type="webapp"), names["Element"]
    missing = [name for name in ATTRIBUTES if not hasattr(session, name)]
    missing += [name for name in METHODS if not callable(getattr(names["WebsocketSession"], name, None))]
    missing += [] if hasattr(names["config"].project, "session_timeout") else ["session_timeout"]
    if missing:
        raise Unknown(f"a session has no {', '.join(missing)}")
    own = [kind for kind in element.__subclasses__() if kind.__module__ == element.__module__]
    kinds = names["kinds"] = {kind.type: kind for kind in reversed(own)}  # an Image before a Pyplot
    message = _shown("a message", partial(made, names["Message"]), MESSAGE, "assistant_message")
    make = partial(made_element, kinds, {})
    message["elements"] = [_shown(f"an element of type {kind}", make, ELEMENT, kind) for kind in kinds]
    given = State("thread", True, "profile", {"key": 1}, {"key": 1}, [message], {})
    names["context_var"].set(SimpleNamespace(session=session))
    try:
        ChainlitChat(session, names).restore(given)
        taken = ChainlitChat(session, names).read()
        lost = [each.name for each in fields(State) if getattr(taken, each.name) != getattr(given, each.name)]
        lost += [] if names["user_session"].get("key") == 1 else ["cl.user_session"]
        lost += [] if [each.id for each in names["chat_context"].get()] == ["id"] else ["cl.chat_context"]
        if lost:
            raise Unknown(f"a session comes back without its {', '.join(lost)}")
        if not getattr(names["config"].project, "enable_telemetry", False):  # else it would be reported
            (ours,) = names["chat_contexts"][session.id]
            made_here = {type(each): each for each in (ours, *ours.elements)}
            for new in (names["Message"](content="new"), kinds["file"](url="new"), kinds["custom"]()):
                if lost := [name for name in vars(new) if not hasattr(made_here[type(new)], name)]:
                    raise Unknown(f"a {type(new).__name__} comes back without its {', '.join(lost)}")
    finally:
        names["user_sessions"].pop(session.id, None)
        names["chat_contexts"].pop(session.id, None)


def _shown(what: str, make: Callable[[dict[str, Any]], Any], keys: str, kind: str) -> dict[str, Any]:
    """What one shows that is made of what another has shown. Raises Unknown where something is lost."""
    data = {key: key for key in keys.split()} | {"type": kind}
    data = {key: key for key in make(data).to_dict()} | data
    again: dict[str, Any] = make(data).to_dict()
    if lost := [key for key in data.keys() - DERIVED if again.get(key) != data[key]]:
        raise Unknown(f"{what} comes back without its {', '.join(sorted(lost))}")
    return again


@dataclass(slots=True)
class ChainlitChat:
    """A session of Chainlit as `sharing` sees it, which says what each method does; see `Chat` there."""

    session: Any
    names: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.session.id)

    @property
    def owner(self) -> str:
        user = self.session.user
        return "" if user is None else f"={user.identifier}"  # nobody in particular, or who is logged in

    def state(self) -> tuple[str, int]:
        try:
            return self.read().to_text()
        except Unstorable:
            raise
        except Exception as error:  # an app may have put anything anywhere
            raise Unstorable(f"a session cannot be taken down: {error!r}") from error

    def read(self) -> State:
        """Its state, without what cannot be had of it."""
        session, names, dropped = self.session, self.names, list[str]()

        def shown(message: Any) -> dict[str, Any]:
            elements = getattr(message, "elements", None) or ()
            show = keep_each(dropped, f"an element {TAKEN}", lambda element: element.to_dict(), elements)
            return {**message.to_dict(), "elements": show}

        kept = dict(names["user_sessions"].get(session.id) or {})
        messages = list(names["chat_contexts"].get(session.id, ()))
        return State(
            thread_id=str(session.thread_id),
            first_interaction=bool(session.has_first_interaction),
            chat_profile=session.chat_profile,
            chat_settings=session.chat_settings,
            user_session={key: value for key, value in kept.items() if key not in COPIED},
            messages=keep_each(dropped, f"a message {TAKEN}", shown, messages),
            files=session.files,
            said=list(said(session)),
            dropped=dropped,
        )

    def files(self) -> list[Path]:
        files = list(self.session.files.values())
        return keep_each([], f"{FILE} {TAKEN}", lambda file: Path(file["path"]), files)

    def abandon(self) -> None:
        if self.session.current_task is not None:
            self.session.current_task.cancel()

    async def let_go(self) -> None:
        """Ends its client's connection as a network does it, so that the client connects anew."""
        await hang_up(self.names["sio"], self.session.socket_id)

    def is_alive(self) -> bool:
        return self.names["WebsocketSession"].get_by_id(self.id) is self.session

    def restore(self, state: State) -> None:
        """Makes the session what it was elsewhere; its files are brought first, see `expected`.

        All is made before anything is set; what cannot be made is added to what the state has dropped.
        """
        session, names = self.session, self.names
        files = {
            key: file | {"id": key, "path": path}
            for (key, file), path in zip(state.files.items(), self.expected(state), strict=True)
            if path.is_file()
        }

        def again(data: dict[str, Any]) -> Any:
            message, make = made(names["Message"], data), partial(made_element, names["kinds"], files)
            message.elements = keep_each(state.dropped, f"an element {BROUGHT}", make, data["elements"])
            return message

        messages = keep_each(state.dropped, f"a message {BROUGHT}", again, state.messages)
        session.restored = session.chat_started = True
        session.thread_id_to_resume = None
        session.thread_id = state.thread_id
        session.has_first_interaction = state.first_interaction
        session.chat_profile, session.chat_settings = state.chat_profile, state.chat_settings
        session.files = files
        said(session).clear()
        said(session).update(dict.fromkeys(state.said, ""))
        names["user_sessions"][session.id] = state.user_session
        names["chat_contexts"][session.id] = messages

    def expected(self, state: State) -> list[Path]:
        """Where Chainlit looks for the files of a state."""
        return [self.session.files_dir / file["file"] for file in state.files.values()]


async def hang_up(sio: Any, socket: str) -> None:
    """Ends the transport of a session's socket, if it is still open, as a network does it."""
    transport = sio.eio.sockets.get(sio.manager.eio_sid_from_sid(socket, "/"))
    if transport is not None:
        await transport.close(wait=False, abort=True)
        transport.queue.put_nowait(None)  # wakes who speaks for it


def said(session: Any) -> dict[str, str]:
    """Marks of what its client has said and was taken, oldest first: by whose socket, "" if elsewhere."""
    kept: dict[str, str] = vars(session).setdefault("chainlit_proxy_said", {})
    return kept


def made(kind: type, data: dict[str, Any]) -> Any:
    """A message as it was, without its elements."""
    message: Any = object.__new__(kind)
    own = {attribute(key): value for key, value in data.items()}
    own |= {"id": data["id"], "author": data["name"], "content": data["output"]}
    vars(message).update(own, streaming=False, persisted=True, actions=[], elements=[])
    return message


def made_element(kinds: dict[str, Any], files: dict[str, Any], shown: dict[str, Any]) -> Any:
    """An element as it was; one of no known kind as a file."""
    file = files.get(shown["chainlitKey"])
    if file is None and not shown["url"]:
        raise LookupError("its file is not here")
    element: Any = object.__new__(kinds.get(shown["type"], kinds["file"]))
    custom = shown["type"] == "custom"  # can be changed, and is written anew then
    content = json.dumps(shown["props"]) if custom else None
    own = {attribute(key): value for key, value in shown.items()}
    path = None if file is None else str(file["path"])
    vars(element).update(own, path=path, content=content, persisted=True, updatable=custom)
    return element


@cache
def attribute(key: str) -> str:
    """The attribute that `to_dict` shows under `key`, such as `thread_id` under `threadId`."""
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), key)
