"""The admin listener in its process: loaded when clients are served, and moved when its address changes."""

import asyncio
import importlib
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from proxy.config import Config
from proxy.parts import Parts

if TYPE_CHECKING:
    from proxy.controlplane.admin import AdminServer, Tokens
    from proxy.controlplane.admin_actions import AdminActions
    from proxy.controlplane.admin_views import AdminViews

_CLIENTS_FIRST = 1.0  # seconds that the framework is not loaded, unless clients are served


class AdminListener:
    """Made by the app, which runs it."""

    def __init__(
        self, parts: Parts, config: Callable[[], Config], sockets: Callable[[], Sequence[socket.socket]]
    ) -> None:
        """`config` tells what is in effect, `sockets` what is bound for this listener."""
        self._parts, self._config, self._bound = parts, config, sockets
        self._server: AdminServer | None = None  # set while it serves
        self._serves: Sequence[socket.socket] = ()

    async def run(self, actions: "Callable[[], AdminActions]", served: asyncio.Event) -> None:
        """Serve until cancelled; `served` is set when clients are.

        The framework takes longer to load than most of the rest, and clients need not wait for it: it is
        loaded beside them once they are served, or would be if discovery had found a backend.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(served.wait(), _CLIENTS_FIRST)
        await asyncio.to_thread(importlib.import_module, "proxy.controlplane.admin")
        from proxy.controlplane.admin import AdminServer, admin_app  # noqa: PLC0415
        from proxy.scrape import Scrape  # noqa: PLC0415

        parts = self._parts
        app = admin_app(actions(), self.views(), Scrape(parts.collector.collect), self.tokens)
        while True:  # another round for each address that it moves to
            self._serves = self._bound()
            self._server = AdminServer(app, self._serves, parts.events.hang_up)
            await self._server.run()

    def views(self) -> "AdminViews":
        """What the API shows."""
        from proxy.controlplane.admin_views import AdminViews  # noqa: PLC0415 - as above

        parts = self._parts
        return AdminViews(
            parts.router,
            parts.events,
            self._config,
            parts.collector.traffic,
            parts.not_ready,
            lambda: parts.wants.wish,
            lambda: parts.recent.lately,
            parts.figures.websockets,
        )

    def tokens(self) -> "Tokens":
        """What it asks for at present."""
        from proxy.controlplane.admin import Tokens  # noqa: PLC0415 - as above

        admin = self._config().admin
        given = (admin.token, admin.hook_token)
        return Tokens(*([token.get_secret_value() for token in tokens or ()] for tokens in given))

    def follow(self) -> None:
        """Other sockets may be bound for it: serve there."""
        if self._server is not None and self._serves != self._bound():
            self._server.stop()

    def __repr__(self) -> str:
        return f"<AdminListener at {self._serves}>"
