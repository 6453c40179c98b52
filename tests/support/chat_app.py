"""The Chainlit app of the system tests: it tells where it runs and remembers what it was told.

Every answer reads `instance=... session=... n=... nonce=...`: the instance, the session, the count of
this session's messages (kept in `cl.user_session`) and what the client sent to recognise the answer.
Every event is also a line in the journal, so a test sees what happened where, not only what came back.
A message is `<nonce> <command> [argument]`; the commands are the functions named in `COMMANDS`.
"""

# mypy: disable-error-code="no-untyped-call"
# Chainlit claims to be typed, but some of its methods are not.

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import chainlit as cl
from chainlit.server import app, sio

INSTANCE = os.environ.get("INSTANCE") or f"pid{os.getpid()}"
JOURNAL = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

if pings := os.environ.get("PINGS"):  # seconds between two, and seconds that a client has to answer
    sio.eio.ping_interval, sio.eio.ping_timeout = map(float, pings.split())


def note(kind: str, session: str, **details: Any) -> None:
    """Appends one event to the journal that all instances share; one write is one line."""
    entry = {"t": time.time(), "instance": INSTANCE, "kind": kind, "session": session, **details}
    os.write(JOURNAL, json.dumps(entry).encode() + b"\n")


def session_id() -> str:
    """The Chainlit session of the current event."""
    return str(cl.context.session.id)


def count() -> int:
    """Counts one more message of this session."""
    n = int(cl.user_session.get("n") or 0) + 1
    cl.user_session.set("n", n)
    return n


def answer(nonce: str, n: int, **more: object) -> str:
    """The text by which the client knows instance, session and state."""
    fields = {"instance": INSTANCE, "session": session_id(), "n": n, "nonce": nonce, **more}
    return " ".join(f"{key}={value}" for key, value in fields.items())


class HttpJournal:
    """ASGI middleware: notes where the tests' own HTTP requests arrive, known by their `x-nonce` header."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes the request on, and notes it if it is ours."""
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and b"x-nonce" in headers:
            session = headers.get(b"x-test-session", b"").decode()
            request = f"{scope['method']} {scope['path']}"
            note("http", session, nonce=headers[b"x-nonce"].decode(), request=request)
        await self.app(scope, receive, send)


app.add_middleware(HttpJournal)


if os.environ.get("LOGIN"):

    @cl.header_auth_callback
    async def login(headers: Any) -> cl.User | None:
        """Whoever the header names."""
        name = headers.get("x-user")
        return cl.User(identifier=name) if name else None


@cl.on_chat_start
async def start() -> None:
    """Greets with a file, which the page fetches by HTTP."""
    note("start", session_id())
    file = cl.File(name="greeting.txt", content=f"greeting of {INSTANCE}".encode(), mime="text/plain")
    await cl.Message(content=answer("greeting", 0), elements=[file]).send()


@cl.on_chat_end
async def end() -> None:
    """Notes that the client's connection ended."""
    note("end", session_id())


@cl.on_message
async def message(incoming: cl.Message) -> None:
    """Counts, notes and runs the command."""
    nonce, _, line = incoming.content.partition(" ")
    command, _, argument = line.partition(" ")
    n = count()
    files = [element.path for element in incoming.elements]
    note("message", session_id(), nonce=nonce, n=n, files=files)
    await COMMANDS.get(command, say)(nonce, n, argument, incoming)


@cl.action_callback("act")
async def act(action: cl.Action) -> str:
    """Answers the HTTP call of a button."""
    nonce = str(action.payload["nonce"])
    n = count()
    note("action", session_id(), nonce=nonce, n=n)
    return answer(nonce, n)


async def say(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Answers; with uploads, what they contain."""
    texts = [open(element.path, "rb").read().decode() for element in incoming.elements if element.path]  # noqa: ASYNC230, PTH123, SIM115
    await cl.Message(content=answer(nonce, n, files="+".join(texts) or "none")).send()


async def stream(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Streams `argument` tokens, with a pause after each if `<tokens> <seconds>` is given."""
    tokens, _, pause = argument.partition(" ")
    reply = cl.Message(content="")
    for i in range(int(tokens)):
        await reply.stream_token(f"t{i} ")
        await asyncio.sleep(float(pause or 0))
    await reply.stream_token(answer(nonce, n))
    await reply.send()


async def block(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Blocks the event loop of the whole instance for `argument` seconds, as a synchronous call would."""
    note("block", session_id(), nonce=nonce)
    time.sleep(float(argument))  # noqa: ASYNC251
    await say(nonce, n, "", incoming)


async def element(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Answers with a file that the client has to fetch."""
    file = cl.File(name=f"{nonce}.txt", content=f"{nonce} of {INSTANCE}".encode(), mime="text/plain")
    await cl.Message(content=answer(nonce, n), elements=[file]).send()


async def ask(nonce: str, n: int, argument: str, incoming: cl.Message) -> None:
    """Asks back over the socket and tells what the client said."""
    response = await cl.AskUserMessage(content="what?", timeout=60).send()
    said = response["output"] if response else "nothing"
    await cl.Message(content=answer(nonce, n, said=said)).send()


COMMANDS: dict[str, Callable[[str, int, str, cl.Message], Awaitable[None]]] = {
    "say": say,
    "stream": stream,
    "block": block,
    "element": element,
    "ask": ask,
}
