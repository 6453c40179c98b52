"""The end of the process, in the middle of what it is asked by the admin listener."""

import asyncio
import json
import logging
from typing import Any

import pytest

from proxy import net
from proxy.config import Address
from proxy.controlplane.admin import AdminServer
from tests.dataplane.loop import run_loop
from tests.dataplane.peers import Peer, get


@pytest.mark.parametrize("begun", [False, True], ids=["before its answer", "in its answer"])
def test_a_request_that_the_end_cuts_off_is_no_error(
    caplog: pytest.LogCaptureFixture, *, begun: bool
) -> None:
    """Whatever is asked when the process ends: the client learns why, and no traceback stands in the log."""

    async def main() -> None:
        asked = asyncio.Event()

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            if begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"so far", "more_body": True})
            asked.set()
            await asyncio.Event().wait()

        sock = net.bind(Address("127.0.0.1", 0))
        server = AdminServer(waits, [sock])
        before = asyncio.all_tasks()
        serving = asyncio.create_task(server.run())
        peer = Peer(*await asyncio.open_connection(*sock.getsockname())).say(get(b"/"))
        await asked.wait()
        for task in asyncio.all_tasks() - before - {serving}:  # as a loop does that ends
            task.cancel()
        if begun:
            assert b"so far" in await peer.rest()
        else:
            answer = await peer.response()
            assert (answer.status, json.loads(answer.body)) == (503, {"detail": "the proxy is leaving"})
        peer.close()
        server.stop()
        await serving
        sock.close()

    run_loop(main())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
