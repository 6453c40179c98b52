"""A chat that needs no API key and shows what sticky sessions are for.

All that it knows of a conversation is in the memory of the instance that holds it: the name it was told, the
count of messages, the uploaded files. Each answer says which instance gave it. Behind a proxy that loses the
way, the count would start again and the files be gone.
"""

import asyncio
import os
import re

import chainlit as cl

PAUSE = 0.02  # seconds between two tokens, about the pace of a language model
INSTANCE = f"port {os.environ.get('CHAINLIT_PORT', '8000')}, process {os.getpid()}"
ANSWER = (
    "This answer comes token by token, over the websocket that your page keeps open to one instance. "
    "Your uploads, the buttons below a message and the elements in it are requests of their own, and they "
    "must reach the same instance, because only there your conversation is known. Open a second tab: it is "
    "a conversation of its own, perhaps on another instance, and both go on."
)
HELP = """\
- `my name is Ada`, and later `who am I?`
- attach a file with a message
- the button below asks this instance what it remembers
- anything else gets a streamed answer
"""
NAME = re.compile(r"\bmy name is\s+([^\W\d_][\w'-]*)", re.IGNORECASE)
WHO = re.compile(r"\bwho am i\b", re.IGNORECASE)


def button() -> cl.Action:
    """A button whose click is a request of its own: POST /project/action."""
    return cl.Action(name="recall", payload={}, label="What do you remember?", icon="brain")


def memory() -> str:
    """What this instance remembers of the conversation, in words."""
    name = cl.user_session.get("name")
    files = cl.user_session.get("files") or []
    count = cl.user_session.get("count") or 0
    parts = [
        f"your name is {name}" if name else "you have not told me your name",
        f"you sent {count} message{'' if count == 1 else 's'}",
        f"you gave me {', '.join(files)}" if files else "you gave me no files",
    ]
    return f"I remember: {'; '.join(parts)}."


async def say(text: str) -> None:
    """Streams a text token by token, with the place where it was made as a last line."""
    message = cl.Message(content="", actions=[button()])
    for token in re.findall(r"\S+\s*", text):
        await message.stream_token(token)
        await asyncio.sleep(PAUSE)
    await message.stream_token(f"\n\n*Message {cl.user_session.get('count')} here, at {INSTANCE}.*")
    await message.send()


def take_files(message: cl.Message) -> str:
    """Notes the files of a message for later, and tells their names and sizes."""
    found = [
        f"{element.name} ({os.path.getsize(element.path):,} bytes)"  # noqa: PTH202  # element.path is a str
        for element in message.elements
        if element.path
    ]
    cl.user_session.set("files", [*(cl.user_session.get("files") or []), *found])
    return f"I got {', '.join(found)}." if found else ""


@cl.on_chat_start
async def greet() -> None:
    """Says hello, with an element that the page fetches from this instance."""
    cl.user_session.set("count", 0)
    cl.user_session.set("files", [])
    await cl.Message(
        content=f"Hello! This conversation lives at {INSTANCE}.",
        elements=[cl.Text(name="What you can try", content=HELP, display="inline")],
        actions=[button()],
    ).send()


@cl.on_message
async def answer(message: cl.Message) -> None:
    """Answers from what this conversation remembers, else with the canned text."""
    cl.user_session.set("count", (cl.user_session.get("count") or 0) + 1)
    if got := take_files(message):
        await say(got)
    elif told := NAME.search(message.content):
        cl.user_session.set("name", told[1])
        await say(f"Nice to meet you, {told[1]}.")
    elif WHO.search(message.content):
        name = cl.user_session.get("name")
        await say(f"You are {name}." if name else "You have not told me your name yet.")
    else:
        await say(ANSWER)


@cl.action_callback("recall")
async def recall(_: cl.Action) -> str:
    """Tells what the instance behind the button remembers."""
    text = memory()
    await cl.Message(content=f"{text}\n\n*At {INSTANCE}.*").send()
    return text
