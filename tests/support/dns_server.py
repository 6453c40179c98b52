"""A real DNS server for a test, and Debian's where there is none: `python -m tests.support.dns_server`.

Installed is `dnsmasq-base`, the program alone: nothing is started by the installation. Where it is missing
and may not be installed, one line says so.
"""

import shutil
import sys
from pathlib import Path

from tests.browser import chromium
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

MISSING = "no DNS server for the tests of discovery: install Debian's package `dnsmasq-base`"


def find() -> str | None:
    """The server's program; it may be where only an administrator looks."""
    return shutil.which("dnsmasq") or shutil.which("/usr/sbin/dnsmasq")


class DnsServer(Process):
    """dnsmasq on a loopback port, which knows its records only and asks nobody; it keeps its port."""

    def __init__(self, folder: Path) -> None:
        program = find()
        assert program, MISSING
        self.port = free_port()
        self._records = folder / "records.conf"
        alone = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--no-poll", "--pid-file="]
        alone += ["--user=", "--group="]  # who changes them is not killed with its parent any more: prctl(2)
        where = ["--listen-address=127.0.0.1", "--bind-interfaces", f"--port={self.port}"]
        told = ["--log-facility=-", "--log-queries", f"--conf-file={self._records}"]
        super().__init__("dnsmasq", [program, *alone, *where, *told], folder / "dnsmasq.log")

    def serve(self, *records: str, ttl: int = 1) -> None:
        """Answer with these records from now on, each as dnsmasq's options have them."""
        self.kill9()
        lines = [f"local-ttl={ttl}", "local=/test/", *records]
        self._records.write_text("".join(f"{line}\n" for line in lines))
        begun = self._count(": started, version")
        self.launch()
        wait_until(
            lambda: self._count(": started, version") > begun, 10, lambda: f"dnsmasq answers\n{self.tail()}"
        )

    def asked(self) -> int:
        """How many questions it was asked."""
        return self._count(": query[")

    def _count(self, words: str) -> int:
        return self.log.read_text(errors="replace").count(words) if self.log.exists() else 0


def main() -> int:
    """Prints the path; non-zero with one line if there is no DNS server."""
    if find() is None:
        chromium.install(("dnsmasq-base",))
    path = find()
    print(path or MISSING, file=sys.stdout if path else sys.stderr)
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main())
