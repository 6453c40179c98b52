"""The proxy with names of its own: an /etc/hosts that a test changes while the proxy runs, and no DNS."""

import subprocess
from pathlib import Path
from typing import Any

from tests.support.proxy_process import ProxyProcess

LOCALHOST = "127.0.0.1 localhost\n"
HERE = "127.0.0.1"
# The kernel itself says that there is no route for TCP to a group of hosts; nothing leaves the machine.
NO_ROUTE = "224.0.0.1"
_MOUNT = 'mount --bind "$0" /etc/hosts && mount --bind "$0.switch" /etc/nsswitch.conf && exec "$@"'
_UNSHARE = ["unshare", "-r", "-m"]


class ProxyWithNames(ProxyProcess):
    """A proxy whose backends have names; at first all of them are here."""

    def __init__(self, config: dict[str, Any], hosts: list[str], folder: Path, name: str = "proxy") -> None:
        super().__init__(config, folder, name)
        self.hosts = hosts
        self._file = folder / f"{name}.hosts"
        self.command = [*_UNSHARE, "sh", "-c", _MOUNT, str(self._file), *self.command]
        Path(f"{self._file}.switch").write_text("hosts: files\n")
        self.know(*hosts)

    def know(self, *hosts: str, without_route: str = "") -> None:
        """Only these names resolve from now on, one of them to where no route leads."""
        lines = [f"{NO_ROUTE if host == without_route else HERE} {host}\n" for host in hosts]
        self._file.write_text(LOCALHOST + "".join(lines))  # in place: it is this file that is mounted


def may_mount() -> bool:
    """Whether this machine lets a process have an /etc/hosts of its own."""
    mounts = "mount --bind /etc/hosts /etc/hosts && mount --bind /etc/nsswitch.conf /etc/nsswitch.conf"
    try:
        return (
            subprocess.run([*_UNSHARE, "sh", "-c", mounts], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False
