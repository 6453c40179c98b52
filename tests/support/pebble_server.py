"""A real authority for a test, and Debian's where there is none: `python -m tests.support.pebble_server`.

Pebble is Let's Encrypt's own for tests of clients; beside it runs its DNS server, which knows every name as
127.0.0.1 until a test says otherwise. Where the package is missing and may not be installed, one line says
so.
"""

import json
import os
import shutil
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.browser import chromium
from tests.support.certificates import Authority
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

MISSING = "no authority for the tests of certificates: install Debian's package `pebble`"
HOST = "127.0.0.1"
# It asks at once, believes each nonce, and wants each name proved each time.
QUICKLY = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}


def find() -> list[str]:
    """The programs, both or none."""
    found = [shutil.which(name) for name in ("pebble", "pebble-challtestsrv")]
    return [program for program in found if program] if all(found) else []


class Pebble(Process):
    """Pebble on loopback ports; it keeps its ports and forgets everything else when it starts again."""

    def __init__(self, folder: Path, proof_port: int, **settings: Any) -> None:
        """It looks for proofs at `proof_port`; `settings` are those of its configuration."""
        programs = find()
        assert programs, MISSING
        self._authority = Authority(folder, "pebble")
        pair = self._authority.issue(HOST, file="pebble-own")
        self.ca = str(self._authority.file)
        self._management, dns_port, self._dns_management = free_port(), free_port(), free_port()
        listen = f"{HOST}:{free_port()}"
        self.directory = f"https://{listen}/dir"
        config = folder / "pebble.json"
        config.write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": listen,
                        "managementListenAddress": f"{HOST}:{self._management}",
                        "certificate": pair["cert"],
                        "privateKey": pair["key"],
                        "httpPort": proof_port,
                        "tlsPort": free_port(),
                        **settings,
                    }
                }
            )
        )
        self._dns = Process(
            "challtestsrv",
            [
                programs[1],
                *("-dns01", f"{HOST}:{dns_port}", "-management", f"{HOST}:{self._dns_management}"),
                *("-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""),
            ],
            folder / "challtestsrv.log",
        )
        command = [programs[0], "-config", str(config), "-dnsserver", f"{HOST}:{dns_port}"]
        super().__init__("pebble", command, folder / "pebble.log", env=QUICKLY)

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        if not self._dns.running:
            self._dns.launch()
        self.launch()
        wait_until(self._answers, 30, lambda: f"pebble answers\n{self.tail()}\n{self._dns.tail()}")

    def end(self) -> None:
        """Kills both."""
        self.kill9()
        self._dns.kill9()

    def _answers(self) -> bool:
        try:
            self.ask("/roots/0")
            self._tell_dns("clear-a", {"host": "nobody.test"})
        except OSError:
            return False
        return True

    def ask(self, path: str) -> bytes:
        """What its management interface answers."""
        url = f"https://{HOST}:{self._management}{path}"
        with urllib.request.urlopen(url, timeout=5, context=self._authority.client()) as response:
            return bytes(response.read())

    def client(self) -> ssl.SSLContext:
        """What trusts the certificates that it issues, and no others."""
        return ssl.create_default_context(cadata=self.ask("/roots/0").decode())

    def misplace(self, name: str) -> None:
        """From now on this name leads to where nobody listens."""
        self._tell_dns("add-a", {"host": f"{name}.", "addresses": ["127.0.0.99"]})

    def place(self, name: str) -> None:
        """Ends `misplace`."""
        self._tell_dns("clear-a", {"host": f"{name}."})

    def _tell_dns(self, what: str, body: dict[str, Any]) -> None:
        url = f"http://{HOST}:{self._dns_management}/{what}"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=5) as response:
            response.read()

    def orders(self) -> int:
        """How many certificates it has issued."""
        return self.log.read_text(errors="replace").count("Issued certificate serial")


def main() -> int:
    """Prints the paths; non-zero with one line if it is not there."""
    if not find() and os.name == "posix":
        chromium.install(("pebble",))
    found = find()
    print(*(found or [MISSING]), file=sys.stdout if found else sys.stderr)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
