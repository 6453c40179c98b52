"""A proxy of this process that gets its certificate from an authority, without backends."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from proxy.config import Config
from proxy.controlplane.renewals import Outcome
from proxy.parts import Parts
from proxy.ports import Ports
from tests.support.pebble_server import Pebble
from tests.support.waiting import eventually

WITHIN = 30.0  # seconds in which the authority has issued or refused, on a machine that is busy


class HttpsSite:
    """One proxy; `async with` it. Its clock of renewals is that of the machine until a test moves it."""

    def __init__(self, pebble: Pebble, folder: Path, plain_port: int, secure_port: int, **acme: Any) -> None:
        self.plain_port, self.secure_port = plain_port, secure_port
        self.ahead = 0.0  # seconds by which the clock of renewals is ahead
        self.config = Config.model_validate(
            {
                "listen": [f"127.0.0.1:{secure_port}", f"http://127.0.0.1:{plain_port}"],
                "reuse_port": True,
                "admin": {"listen": "127.0.0.1:0"},
                "affinity": {"hold": 0},
                "tls": {
                    "acme": {
                        "domains": ["chat.test"],
                        "directory": pebble.directory,
                        "ca": pebble.ca,
                        "folder": str(folder),
                        **acme,
                    }
                },
            }
        )
        self.parts = Parts(self.config)
        self.renewals = self.parts.renewals
        clock = self.renewals._clock
        self.renewals._clock = lambda: clock() + self.ahead
        self.serving = asyncio.Event()
        self._ports = Ports()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Clients are served from now on, and the certificate is looked for when `serving` is set."""
        bound = self._ports.bound = self._ports.opened(self.config)
        for sock in bound.admin.values():
            sock.close()
        plane = self.parts.plane
        self._tasks = [
            asyncio.create_task(plane.run(list(bound.clients.values()), bound.plain)),
            asyncio.create_task(self.renewals.run(self.serving)),
        ]
        await self.until(lambda: plane.listeners._servers)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def until(self, question: Callable[[], object]) -> None:
        """Waits until something is so."""
        await eventually(question, WITHIN, lambda: f"{self.renewals!r} {self.counts}")

    @property
    def counts(self) -> tuple[int, int]:
        """Certificates that were issued for it, and tries that failed."""
        counts = self.renewals.counts
        return counts[Outcome.RENEWED], counts[Outcome.FAILED]

    def look(self) -> None:
        """As a reload: it looks at once, and tries again what failed."""
        self.renewals.configure(self.config.tls.acme)

    async def shown(self, trust: ssl.SSLContext, name: str = "chat.test") -> dict[str, Any]:
        """The certificate that a client gets to see who asks for this name. Raises ssl.SSLError."""
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.secure_port, ssl=trust, server_hostname=name
        )
        found: dict[str, Any] = writer.get_extra_info("ssl_object").getpeercert()
        writer.close()
        return found

    async def serial(self, trust: ssl.SSLContext, name: str = "chat.test") -> str:
        """Its number; "" while what is shown is not trusted."""
        try:
            return str((await self.shown(trust, name))["serialNumber"])
        except ssl.SSLCertVerificationError:
            return ""

    async def until_shown(self, trust: ssl.SSLContext, but: str = "", name: str = "chat.test") -> str:
        """The number of the trusted certificate that is shown, once it is another one."""
        ended = asyncio.get_running_loop().time() + WITHIN
        while (found := await self.serial(trust, name)) in {"", but}:
            assert asyncio.get_running_loop().time() < ended, f"{self.renewals!r} {self.counts}"
            await asyncio.sleep(0.1)
        return found

    async def ask(self, request: bytes) -> bytes:
        """What the plain listener answers; it has to close."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plain_port)
        writer.write(request)
        async with asyncio.timeout(WITHIN):
            answer = await reader.read()
        writer.close()
        return answer
