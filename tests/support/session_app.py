"""The Chainlit app of the tests of shared sessions: every answer tells all that a session should remember.

Speaks as `chat_app` does: `instance=... session=... n=... nonce=...`, then what is kept of each kind. It asks
for a login where LOGIN is set (the header `x-user`), and writes threads to the file that DATA names.
"""

# mypy: disable-error-code="no-untyped-call"
# Chainlit claims to be typed, but some of its methods are not.

import asyncio
import enum
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import chainlit as cl
from chainlit.data.base import BaseDataLayer

from tests.support.figures import DataFrame, Figure, stand_in

INSTANCE = f"pid{os.getpid()}"
JOURNAL = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

if port := os.environ.get("METRICS"):
    from prometheus_client import start_http_server

    start_http_server(int(port), "127.0.0.1")

if event := os.environ.get("UNKNOWN"):
    from chainlit.server import sio

    sio.handlers["/"].pop(event)

if os.environ.get("SHARE"):
    sys.path.insert(0, os.environ["SHARE_FROM"])
    from chainlit_proxy import share

    share(os.environ["SHARE"])


if seconds := os.environ.get("PING"):
    from chainlit.server import sio

    sio.eio.ping_interval = sio.eio.ping_timeout = float(seconds)

if seconds := os.environ.get("LOGIN_LASTS"):
    from chainlit.config import config

    config.project.user_session_timeout = int(seconds)


class Shade(enum.StrEnum):
    """Text to JSON."""

    DARK = "dark"


class Tally:
    """A type of the app, which only the app can store."""

    def __init__(self, count: int) -> None:
        self.count = count


if os.environ.get("CODEC"):
    sys.path.insert(0, os.environ["CODEC"])
    from chainlit_proxy import on_restore, register_codec

    register_codec(Tally, lambda tally: tally.count, Tally)

    @on_restore
    async def restored() -> None:
        """Makes anew what cannot be stored."""
        cl.user_session.set("client", "made anew")


def note(kind: str, session: str, **details: Any) -> None:
    """Appends one event to the journal that all instances share; one write is one line."""
    entry = {"t": time.time(), "instance": INSTANCE, "kind": kind, "session": session, **details}
    os.write(JOURNAL, json.dumps(entry).encode() + b"\n")


def session_id() -> str:
    """The Chainlit session of the current event."""
    return str(cl.context.session.id)


def answer(nonce: str, n: int, **more: object) -> str:
    """The text by which the client knows instance, session and state."""
    get = cl.user_session.get
    tally, asked = get("tally"), get("asked")
    fields = {
        "instance": INSTANCE,
        "session": session_id(),
        "n": n,
        "nonce": nonce,
        "first": get("first"),
        "thread": cl.context.session.thread_id,
        "context": "/".join(f"{m.type[0]}{m.content.split()[0][:6]}" for m in cl.chat_context.get())
        or "none",
        "setting": (get("chat_settings") or {}).get("level", "none"),
        "profile": get("chat_profile") or "none",
        "files": "+".join(sorted(file["name"] for file in cl.context.session.files.values())) or "none",
        "tally": tally.count if tally else "none",
        "lock": "there" if get("lock") else "none",
        "client": (get("client") or "none").replace(" ", "-"),
        "asked": asked.content.split()[0] if asked else "none",
        "elements": "+".join(sorted({e.type for m in cl.chat_context.get() for e in m.elements})) or "none",
        "user": user.identifier if (user := get("user")) else "none",
        **more,
    }
    return " ".join(f"{key}={value}" for key, value in fields.items())


if os.environ.get("PROFILES"):

    @cl.set_chat_profiles
    async def profiles(_: cl.User | None) -> list[cl.ChatProfile]:
        """Two to choose from."""
        return [cl.ChatProfile(name=name, markdown_description=name) for name in ("calm", "quick")]


if os.environ.get("LOGIN"):

    @cl.header_auth_callback
    async def login(headers: Any) -> cl.User | None:
        """Whoever the header names."""
        name = headers.get("x-user")
        return cl.User(identifier=name) if name else None


if os.environ.get("DATA"):

    class Threads(BaseDataLayer):
        """A data layer that only notes which steps it is given for which thread."""

        async def create_step(self, step_dict: Any) -> None:
            """Noted."""
            note("step", session_id(), thread=step_dict["threadId"])

        async def get_user(self, identifier: str) -> Any:
            """Every user is known."""
            return cl.PersistedUser(identifier=identifier, id=identifier, createdAt="2026-01-01T00:00:00Z")

        async def create_user(self, user: Any) -> Any:
            """As it was found."""
            return await self.get_user(user.identifier)

    async def _nothing(*_: Any, **__: Any) -> None:
        """Whatever else Chainlit asks of a data layer."""

    for name in BaseDataLayer.__abstractmethods__ - vars(Threads).keys():
        setattr(Threads, name, _nothing)
    Threads.__abstractmethods__ = frozenset()

    @cl.data_layer
    def data_layer() -> BaseDataLayer:
        """One for all."""
        return Threads()  # type: ignore[abstract]

    @cl.on_chat_resume
    async def resume(_: Any) -> None:
        """Noted: a session that was taken over is not resumed."""
        note("resume", session_id())


if os.environ.get("AUDIO"):
    from chainlit.config import config

    config.features.audio.enabled = True

    @cl.on_audio_chunk
    async def heard(chunk: cl.InputAudioChunk) -> None:
        """Says it back."""
        back = cl.OutputAudioChunk(track="echo", mimeType=chunk.mimeType, data=chunk.data)
        await cl.context.emitter.send_audio_chunk(back)


@cl.on_chat_start
async def start() -> None:
    """Greets with a file."""
    note("start", session_id())
    if pause := os.environ.get("SLOW_START"):
        await asyncio.sleep(float(pause))
    cl.user_session.set("tally", Tally(7))
    file = cl.File(name="greeting.txt", content=f"greeting of {INSTANCE}".encode(), mime="text/plain")
    await cl.Message(content=answer("greeting", 0), elements=[file]).send()
    if os.environ.get("ENDLESS_START"):
        await asyncio.sleep(3600)


@cl.on_chat_end
async def end() -> None:
    """Notes that the client's connection ended."""
    note("end", session_id())


@cl.on_settings_update
async def settings(_: dict[str, Any]) -> None:
    """Settings are read from the session."""


@cl.on_message
async def message(incoming: cl.Message) -> None:
    """Counts, notes and runs the command."""
    nonce, _, line = incoming.content.partition(" ")
    command, _, argument = line.partition(" ")
    n = int(cl.user_session.get("n") or 0) + 1
    cl.user_session.set("n", n)
    if n == 1:
        cl.user_session.set("first", nonce)
    note("message", session_id(), nonce=nonce, n=n)
    await COMMANDS[command or "say"](nonce, n, argument, incoming)


@cl.action_callback("act")
async def act(action: cl.Action) -> str:
    """A button that changes the state."""
    n = int(cl.user_session.get("n") or 0) + 1
    cl.user_session.set("n", n)
    return answer(str(action.payload["nonce"]), n)


async def say(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Answers; with uploads, what they contain."""
    texts = [Path(element.path).read_text() for element in incoming.elements if element.path]  # noqa: ASYNC240
    await cl.Message(content=answer(nonce, n, read="+".join(texts) or "none")).send()


async def stream(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Streams `argument` tokens, with a pause after each."""
    tokens, _, pause = argument.partition(" ")
    reply = cl.Message(content="")
    for i in range(int(tokens)):
        await reply.stream_token(f"t{i} ")
        await asyncio.sleep(float(pause or 0))
    await reply.stream_token(answer(nonce, n))
    await reply.send()


async def lock(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Keeps what nobody can store, and answers."""
    cl.user_session.set("lock", threading.Lock())
    await say(nonce, n, argument, incoming)


async def elements(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Reads the files of all messages of the chat context."""
    read = [Path(e.path).read_text() for m in cl.chat_context.get() for e in m.elements if e.path]  # noqa: ASYNC240
    await cl.Message(content=answer(nonce, n, read="+".join(sorted(set(read))) or "none")).send()


async def figures(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Answers with elements that are made of what cannot be stored."""
    stand_in()
    card = cl.CustomElement(name="Card", props={"shade": Shade.DARK})
    plot, table = cl.Plotly(name="plot", figure=Figure()), cl.Dataframe(name="table", data=DataFrame())
    cl.user_session.set("asked", incoming)
    await cl.Message(content=answer(nonce, n), elements=[plot, card, table]).send()
    card.props["client"] = threading.Lock()


COMMANDS: dict[str, Callable[[str, int, str, cl.Message], Awaitable[None]]] = {
    "say": say,
    "stream": stream,
    "lock": lock,
    "elements": elements,
    "figures": figures,
}
