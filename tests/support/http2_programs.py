"""Programs that speak HTTP/2 to a proxy, or Debian's: `python -m tests.support.http2_programs`.

curl, and those of nghttp2, the library in curl: nghttp shows frames, h2load asks as often as it can, nghttpx
stands between clients in HTTP/1.1 and a proxy, and speaks for all of them over one connection.
"""

import shutil
import sys
from pathlib import Path

from tests.browser import chromium
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

PACKAGES = {
    "curl": "curl",
    "nghttp": "nghttp2-client",
    "h2load": "nghttp2-client",
    "nghttpx": "nghttp2-proxy",
}

MISSING = f"no programs for the tests of HTTP/2: install Debian's {', '.join(sorted(set(PACKAGES.values())))}"


def program(name: str) -> str:
    """The path of one of them."""
    found = shutil.which(name)
    assert found, MISSING
    return found


class Combined(Process):
    """nghttpx: what is asked of it in HTTP/1.1 goes to a proxy in HTTP/2, all of it over one connection."""

    def __init__(self, folder: Path, target: str, authority: Path, name: str) -> None:
        """`target` is a URL of https; its certificate is for `name`, and signed by the one in this file."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        host, _, port = target.removeprefix("https://").rpartition(":")
        super().__init__(
            "nghttpx",
            [
                *(
                    program("nghttpx"),
                    "--conf=/dev/null",
                    "--workers=1",
                    f"--frontend=127.0.0.1,{self.port};no-tls",
                ),
                f"--backend={host},{port};;proto=h2;tls;sni={name}",
                *(f"--cacert={authority}", "--backend-read-timeout=120", "--log-level=NOTICE"),
            ],
            folder / "nghttpx.log",
            cwd=folder,
        )

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        self.launch()
        wait_until(lambda: "Listening on" in self.tail(50), 20, lambda: f"nghttpx listens\n{self.tail()}")


def main() -> int:
    """Prints the paths; non-zero with one line if some are not there."""
    missing = {package for name, package in PACKAGES.items() if shutil.which(name) is None}
    if missing:
        chromium.install(sorted(missing))
    found = [path for name in PACKAGES if (path := shutil.which(name))]
    is_there = len(found) == len(PACKAGES)
    print(*(found if is_there else [MISSING]), file=sys.stdout if is_there else sys.stderr)
    return 0 if is_there else 1


if __name__ == "__main__":
    sys.exit(main())
