"""An app for tests of load: one that blocks its event loop, or one that waits for one of a few models.

`LOADED=block 0.5`: each answer keeps the whole loop busy for so many seconds before its first token.
`LOADED=models 4 0.5`: each answer takes one of four models for so many seconds, and blocks nobody.
"""

# mypy: disable-error-code="no-untyped-call"
# Chainlit claims to be typed, but some of its methods are not.

import asyncio
import os
import time

import chainlit as cl

KIND, *FIGURES = os.environ.get("LOADED", "block 0").split()
SECONDS = float(FIGURES[-1])
MODELS = asyncio.Semaphore(int(FIGURES[0]) if KIND == "models" else 1)


@cl.on_message
async def message(incoming: cl.Message) -> None:
    """Takes its time, and streams ten tokens."""
    if KIND == "models":
        async with MODELS:
            await asyncio.sleep(SECONDS)
    else:
        time.sleep(SECONDS)  # noqa: ASYNC251
    reply = cl.Message(content="")
    for at in range(10):
        await reply.stream_token(f"t{at} ")
    await reply.send()
