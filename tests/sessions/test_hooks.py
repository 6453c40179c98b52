"""What the hooks make of a Chainlit whose own part of an event fails."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.sessions.hooks import Hooks
from tests.sessions.conftest import RunScenario, Site
from tests.support.tabs import Tab

SID = "socket"


class Chainlit:
    """A scripted one with one session; its data layer is down."""

    def __init__(self, session: str) -> None:
        self.ends: asyncio.Event | None = (
            None  # what the app waits for when a client has gone; None: it fails
        )
        self.handlers: dict[str, dict[str, Callable[..., Awaitable[Any]]]] = {
            "/": {"connect": self._connect, "disconnect": self._disconnect}
        }
        self.session = SimpleNamespace(
            id=session, user=None, thread_id="t", has_first_interaction=False, chat_profile=None,
            chat_settings={}, files={}, files_dir=Path(), current_task=None, to_clear=True, socket_id=SID,
        )  # fmt: skip
        self.names: dict[str, Any] = {
            "sio": self,
            "WebsocketSession": SimpleNamespace(get=lambda _: self.session, get_by_id=lambda _: None),
            "user_sessions": {},
            "chat_contexts": {},
            "config": SimpleNamespace(code=SimpleNamespace(on_message=None, action_callbacks={})),
        }

    def on(self, event: str, handler: Callable[..., Awaitable[Any]], namespace: str = "/") -> None:
        """As python-socketio."""
        self.handlers.setdefault(namespace, {})[event] = handler

    async def hear(self, event: str, *arguments: Any) -> None:
        """Something comes."""
        await self.handlers["/"][event](SID, *arguments)

    async def _connect(self, *_: Any) -> bool:
        return True

    async def _disconnect(self, *_: Any) -> None:
        if self.ends is not None:
            await self.ends.wait()
            return
        raise ConnectionError("the data layer is down")


def test_a_session_ends_although_chainlit_fails_at_it(run: RunScenario) -> None:
    """A data layer that is down when the user begins a new chat leaves nothing that lives on."""

    async def scenario(site: Site) -> None:
        a, tab = site.instance(), Tab()
        chainlit = Chainlit(tab.id)
        Hooks(chainlit.names, a.sharing, "", retry_turn=False).install()
        await chainlit.hear("connect", {}, {"sessionId": tab.id})
        async with a.sharing.turn(tab.id, {"message": "one"}):
            pass
        with pytest.raises(ConnectionError):
            await chainlit.hear("disconnect")
        await a.settled()
        assert a.standing(tab) is None
        assert await site.instance().connect(Tab(tab.id), new=True) == (None, [])

    run(scenario)


def test_nobody_waits_for_an_app_that_takes_long_over_a_goodbye(run: RunScenario) -> None:
    """The client goes on elsewhere with what is stored, while the app still ends the chat here."""

    async def scenario(site: Site) -> None:
        a, tab = site.instance(), Tab()
        chainlit = Chainlit(tab.id)
        chainlit.ends = asyncio.Event()
        Hooks(chainlit.names, a.sharing, "", retry_turn=False).install()
        await chainlit.hear("connect", {}, {"sessionId": tab.id})
        chainlit.session.to_clear = False
        async with a.sharing.turn(tab.id, {"message": "one"}):
            pass
        await chainlit.hear("disconnect", "client disconnect")
        assert await site.instance().connect(Tab(tab.id), new=True) is not None
        chainlit.ends.set()
        await a.settled()

    run(scenario)
