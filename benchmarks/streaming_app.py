"""The Chainlit app of the compression benchmark: the message `COUNT EVERY` streams that many tokens."""

import asyncio

import chainlit as cl

WORDS = [
    "the",
    "quick",
    "proxy",
    "sends",
    "every",
    "single",
    "token",
    "to",
    "the",
    "browser",
    "that",
    "asked",
]


@cl.on_message
async def stream(message: cl.Message) -> None:
    """Streams COUNT words, EVERY so many seconds; with 0, as fast as Chainlit can."""
    count, every = message.content.split()
    reply = cl.Message(content="")
    for number in range(int(count)):
        await reply.stream_token(" " + WORDS[number % len(WORDS)])
        if float(every):
            await asyncio.sleep(float(every))
    await reply.send()  # type: ignore[no-untyped-call]
