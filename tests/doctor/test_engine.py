"""A connection to a site that says what nobody expects."""

import asyncio

import pytest
from aiohttp import web

from proxy.doctor import engine as module
from proxy.doctor.browser import SOCKET, Browser
from proxy.doctor.engine import Engine, Transport
from proxy.doctor.tab import Tab
from tests.doctor.site import deployment


def after(*packets: str) -> Engine:
    """A connection over which these came once it was open, and which has ended."""

    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str('0{"sid":"a"}')
        await socket.receive_str()
        for packet in ('40{"sid":"b"}', *packets):
            await socket.send_str(packet)
        await socket.receive()
        return socket

    async def run() -> Engine:
        async with (
            deployment({SOCKET: talk}) as site,
            Browser(site) as browser,
            Tab(browser, Transport.WEBSOCKET) as tab,
        ):
            await tab.load()
            await asyncio.wait_for(tab.engine.gone.wait(), 5)
            return tab.engine

    return asyncio.run(run())


@pytest.mark.parametrize("packet", ["42[", "42" + "[" * 100_000, "4x"])
def test_what_is_no_packet_ends_it(packet: str) -> None:
    """It is evidence, and nobody waits for answers that are not read any more."""
    assert "no packet of Socket.IO" in after(packet).ended


def test_a_flood_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing looks at them for as long as --idle says."""
    monkeypatch.setattr(module, "_MOST_EVENTS", 10)
    assert after(*['42["' + "x" * 9999 + '"]'] * 100, "41").events.qsize() == 10
