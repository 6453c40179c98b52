"""Real Chainlit instances of the test app, and the fleet of them that the tests share."""

import http.client
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from tests.support.journal import Journal
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

APP = Path(__file__).with_name("chat_app.py")


def http_status(url: str, timeout: float = 2) -> int:
    """The status of a GET, or 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, http.client.HTTPException):
        return 0


class ChainlitInstance(Process):
    """`chainlit run` on a port of its own, with a root folder of its own; the port stays over restarts."""

    def __init__(self, name: str, folder: Path, journal: Path, app: Path = APP) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        root = folder / f"root-{name}"
        root.mkdir()
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        super().__init__(
            name,
            [sys.executable, "-m", "chainlit", "run", str(app), "--headless", *where],
            folder / f"{name}.log",
            env={"INSTANCE": name, "JOURNAL": str(journal), "CHAINLIT_APP_ROOT": str(root)},
            cwd=root,
        )

    def wait_ready(self, timeout: float = 40) -> None:
        """Waits until the instance answers its health check; AssertionError with its log if it ends first."""

        def answers() -> bool:
            assert self.running, f"{self.name} ended with {self.returncode}\n{self.tail()}"
            return http_status(f"{self.url}/health") == 200

        wait_until(answers, timeout, lambda: f"{self.name} ready\n{self.tail()}")


class Fleet:
    """Several instances with one journal, named a, b, c...; owned by a fixture."""

    def __init__(self, folder: Path, size: int, app: Path = APP, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal.jsonl")
        self.instances = {
            name: ChainlitInstance(name, folder, self.journal.path, app) for name in "abcdefgh"[:size]
        }
        for instance in self.instances.values():
            instance.env |= env or {}

    def __enter__(self) -> Self:
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def __getitem__(self, name: str) -> ChainlitInstance:
        return self.instances[name]

    @property
    def names(self) -> list[str]:
        """The names of all instances."""
        return list(self.instances)

    def heal(self) -> None:
        """Brings back every instance that a test killed, stopped or paused."""
        for instance in self.instances.values():
            instance.resume()
            if not instance.running:
                instance.launch()
        for instance in self.instances.values():
            instance.wait_ready()

    def kill(self) -> None:
        """Ends all instances at once; their state is of no more use."""
        for instance in self.instances.values():
            instance.kill9()
