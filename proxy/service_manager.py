"""What the service manager is told of this process, by systemd's protocol (sd_notify(3)).

Words on a datagram socket whose name is in the environment: that clients are served, that the configuration
is read again, that the end has begun, and that the event loop still turns. Without a manager that asked for
it nothing is said. What is found in the environment is taken out: it is not for replicas.
"""

import asyncio
import logging
import os
import socket
from collections.abc import MutableMapping
from time import CLOCK_MONOTONIC, clock_gettime_ns

log = logging.getLogger("proxy")

_PATIENCE = 1.0  # seconds that a manager may take to read: the event loop waits
_OFTEN = 3  # times that is said, in the time after which it is missed, that the loop turns


class ServiceManager:
    """The one that started this process, if any; made by the app."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        name = environ.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{name[1:]}" if name.startswith("@") else name  # the former has no place on a disk
        mine = environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.pop("WATCHDOG_USEC", "")
        # Seconds between two signs of life; None if nobody waits for them.
        self.beat = int(usec) / 1e6 / _OFTEN if name and mine and usec.isdecimal() and int(usec) else None

    def ready(self, status: str) -> None:
        """Clients are served, by the configuration that was read last."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is read again; `ready` says when that is done."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The process is about to end."""
        self._tell("STOPPING=1", "STATUS=leaving")

    async def watch(self) -> None:
        """Say that the event loop turns, until cancelled."""
        while self.beat is not None:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.beat)

    def _tell(self, *words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.connect(self._address)
                sock.send("\n".join(words).encode())
        except OSError as error:
            log.warning("the service manager was not told %s: %s", words[0], error)

    def __repr__(self) -> str:
        return f"<ServiceManager at {self._address!r} beat={self.beat}>"
