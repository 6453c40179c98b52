"""Sessions of the real Chainlit in a process of its own: `python chainlit_lab.py restore`, or `differences`.

Chainlit makes folders and patches asyncio when it is imported, so no test imports it. What is printed last is
the answer, as JSON.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, attr-defined, method-assign, assignment"
# Chainlit claims to be typed, but some of its methods are not; and here they are replaced.

import asyncio
import enum
import json
import logging
import shutil
import sys
import threading
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chainlit as cl
import chainlit.server
from chainlit.chat_context import ChatContext
from chainlit.context import init_http_context
from chainlit.element import Element
from chainlit.message import Message, MessageBase
from chainlit.session import BaseSession, HTTPSession, WebsocketSession

from proxy.sessions import chat as module
from proxy.sessions.chat import ChainlitChat, Unknown, find
from proxy.sessions.state import State
from tests.support.figures import DataFrame, Figure, stand_in

UserSession = type(cl.user_session)


class Shade(enum.StrEnum):
    """Text to JSON."""

    DARK = "dark"


def elements() -> list[Any]:
    """Every kind of element, by content, by path and by URL."""
    stand_in()
    Path("a.bin").write_bytes(b"in a file")
    made: list[Any] = []
    for kind in (cl.Image, cl.Text, cl.Pdf, cl.Audio, cl.Video, cl.File):
        name = kind.__name__
        made.append(kind(name=f"{name} by content", content=name.encode(), display="side"))
        made.append(kind(name=f"{name} by path", path="a.bin"))
        made.append(kind(name=f"{name} by url", url=f"https://example.com/{name}"))
    made[0].size, made[3].language, made[6].page = "large", "python", 7
    made += [cl.Plotly(name="plotly", figure=Figure()), cl.Pyplot(name="pyplot", figure=Figure())]
    made += [cl.Dataframe(name="dataframe", data=DataFrame())]
    return [*made, cl.CustomElement(name="Card", props={"shade": Shade.DARK, "n": 1})]


def moved(names: dict[str, Any], session: Any, meddle: Callable[[Any], Any] = lambda data: data) -> Any:
    """The session at another instance, and how much was lost at each end."""
    text, stored = ChainlitChat(session, names).state()
    state = State.from_text(json.dumps(meddle(json.loads(text))))
    other = ChainlitChat(HTTPSession(id=f"{session.id}-other", client_type="webapp"), names)
    for file, path in zip(ChainlitChat(session, names).files(), other.expected(state), strict=True):
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, path)
    other.restore(state)
    return other.session, stored, len(state.dropped)


def contents(path: str) -> str:
    """The text of a file."""
    return Path(path).read_text()


async def restore() -> Any:
    """What becomes of messages and elements of all kinds."""
    names = find()
    session = init_http_context().session
    shown = elements()
    await cl.Message(content="all", elements=shown, metadata={"a": (1,)}, tags=["t"], author="me").send()
    await cl.ErrorMessage(content="wrong").send()
    await cl.AskUserMessage(content="well?").update()
    async with cl.Step(name="step", type="tool") as step:
        step.output = "done"
    cl.chat_context.add(step)
    other, stored, lost = moved(names, session)
    messages = names["chat_contexts"][other.id]
    whole = messages[0]
    answer: dict[str, Any] = {
        "lost": [stored, lost],
        "messages": [[message.content, message.is_error, message.author] for message in messages],
        "same": {
            one.name: [
                type(again) is (cl.Image if isinstance(one, cl.Pyplot) else type(one)),
                again.to_dict() == one.to_dict(),
                bool(again.url) or contents(again.path),
            ]
            for one, again in zip(shown, whole.elements, strict=True)
        },
        "message": whole.to_dict() == names["chat_contexts"][session.id][0].to_dict(),
    }
    init = names["context_var"].get()
    init.session = other
    whole.elements[-1].props["n"] = 3
    await whole.update()
    answer["sent again"] = all(
        element.chainlit_key in other.files or element.url for element in whole.elements
    )
    return answer


async def damage() -> Any:
    """What is lost of a session in which a lot is broken."""
    names, session = find(), init_http_context().session
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("chainlit_proxy.sessions").addHandler(handler)
    card = cl.CustomElement(name="Card", props={})
    good = cl.File(name="good", content=b"good")
    unsent = cl.File(name="unsent", content=b"unsent")
    first = await cl.Message(content="first", elements=[card, good]).send()
    card.props["client"] = threading.Lock()
    first.elements += [unsent, None, cl.File(name="linked", url="https://example.com")]
    await cl.Message(content=Shade.DARK, metadata={"client": threading.Lock()}).send()
    broken = await cl.Message(content="broken").send()
    broken.content = threading.Lock()
    cl.chat_context.add(object())  # type: ignore[arg-type]
    await cl.Message(content="last").send()
    cl.user_session.set("shade", Shade.DARK)

    def meddle(data: Any) -> Any:
        """As a store of another release may have it."""
        data["messages"] += [{"id": "x", "metadata": {}, "elements": []}, None]
        data["messages"][0]["elements"] += [{"type": "of tomorrow"}]
        return data

    for _ in range(2):
        other, stored, lost = moved(names, session, meddle)
    messages = names["chat_contexts"][other.id]
    return {
        "lost": [stored, lost],
        "messages": [[message.content, [each.name for each in message.elements]] for message in messages],
        "warnings": sorted(record.partition(":")[0] for record in records),
    }


async def refuses() -> Any:
    """What `state` raises where all of the session is broken."""
    names, session = find(), init_http_context().session
    answers = []
    for attribute, value in (("files", None), ("chat_settings", 7)):
        setattr(session, attribute, value)
        try:
            ChainlitChat(session, names).state()
        except module.Unstorable as reason:
            answers.append(str(reason).partition(":")[0])
        session.files, session.chat_settings = {}, {}
    return answers


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another attribute for a while."""
    had, before = name in vars(owner), getattr(owner, name, None)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def without(key: str, shown: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """A `to_dict` that shows less."""
    return lambda self: {name: value for name, value in shown(self).items() if name != key}


def differences() -> Any:
    """What `find` says of Chainlits that differ a little from this one."""
    message: Any = MessageBase.to_dict
    element: Any = Element.to_dict
    init = Message.__init__

    def more(self: Any, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        self.buffer = []

    def renamed(self: Any) -> dict[str, Any]:
        return {**message(self), "output": self.text}

    def moody(self: Any) -> dict[str, Any]:
        return {**message(self), "theMood": self.the_mood}

    nothing = property(lambda _: None, lambda *_: None)
    cases = {
        "metadata": (MessageBase, "to_dict", without("metadata", message)),
        "another name": (MessageBase, "to_dict", renamed),
        "props": (Element, "to_dict", without("props", element)),
        "an attribute": (Message, "__init__", more),
        "profile": (BaseSession, "chat_profile", nothing),
        "user_session": (UserSession, "get", lambda *_: None),
        "chat_context": (ChatContext, "get", lambda *_: []),
        "restore": (WebsocketSession, "restore", None),
        "session": (HTTPSession, "__init__", lambda _: None),
        "a new field": (MessageBase, "to_dict", moody),
    }
    MessageBase.the_mood = None
    answers: dict[str, Any] = {}
    for name, (owner, attribute, value) in cases.items():
        with replaced(owner, attribute, value):
            answers[name] = asked()
    names = find()
    left = [each.name for each in Path(".files").iterdir()]
    took = min(timeit.repeat(find, number=1, repeat=10))
    answers["as it is"] = [asked(), names["user_sessions"], names["chat_contexts"], left, took < 0.02]
    return answers


def asked() -> str:
    """What `find` says."""
    try:
        find()
    except Unknown as reason:
        return str(reason)
    return "known"


if __name__ == "__main__":
    scenario = globals()[sys.argv[1]]
    answer = asyncio.run(scenario()) if asyncio.iscoroutinefunction(scenario) else scenario()
    print(json.dumps(answer))
