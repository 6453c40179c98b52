"""The end of the process, as it is asked for by signals."""

import asyncio

from proxy.app import App
from proxy.config import Config
from tests.dataplane.peers import SMALL, Peer, get
from tests.dataplane.scripted import Backend
from tests.support.waiting import eventually

WAIT = 10.0


def test_a_second_signal_right_behind_the_first() -> None:
    """It ends at once, though a request is under way: also if both came before the first was acted upon."""

    async def scenario() -> None:
        backend = Backend("a")
        await backend.listen()
        app = App(
            Config.model_validate(
                {
                    "listen": "127.0.0.1:0",
                    "admin": {"listen": "127.0.0.1:0"},
                    "backends": [{"name": "a", "url": f"http://127.0.0.1:{backend.port}"}],
                    "health": {"type": "none"},
                }
            )
        )
        app.bind()
        running = asyncio.create_task(app.run())
        (sock,) = app.ports.bound.clients.values()
        client = Peer(*await asyncio.open_connection(*sock.getsockname(), limit=SMALL))
        client.say(get())
        await (await backend.accept()).request()
        app._signalled()
        app._signalled()
        await eventually(running.done, WAIT, "it ends")
        await running
        client.writer.transport.abort()
        await backend.end()

    asyncio.run(scenario())
