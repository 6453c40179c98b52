"""A newcomer types the commands of quickstart and README, in order, on a machine that has only Python.

The folder holds an app and nothing else, the page makes the virtual environment, and the checkout is where
the pages have it. Only the ports differ from the text, so that other programs on this machine do not matter.
"""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_commands import CHECKOUT
from tests.support.clients import Clients
from tests.support.instances import APP, http_status
from tests.support.journal import Journal
from tests.support.link import Driver, Kind, Transports
from tests.support.size import IN_FULL
from tests.support.typist import Typist
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not IN_FULL, reason="it installs from the package index: make newcomer"),
]

INSTALL = 300.0
START = 60.0
SECTIONS = ("Your app on one machine", "How to see that it works", "Instances that you start yourself")
BROWSER = Kind(Driver.PYTHON, Transports.BOTH)


class Newcomer(Typist):
    """A reader of one section, without any of the tests' own programs and settings."""

    def __init__(self, machine: Path, page: str, heading: str) -> None:
        folder = machine / "app"
        programs = [folder / ".venv/bin", Path(sys.base_prefix) / "bin"]
        others = os.environ["PATH"].replace(str(Path(sys.executable).parent), "")
        super().__init__(
            folder,
            page,
            heading,
            HOME=str(machine),
            PATH=os.pathsep.join([*map(str, programs), others.strip(os.pathsep)]),
            PYTHONPATH="",
            JOURNAL=str(machine / "journal.jsonl"),
        )
        self.shell_time = INSTALL

    def type(self, line: str, **env: str) -> str:
        """Types a command; `run` gets this reader's ports where its line has none."""
        if line.startswith("chainlit-proxy run app.py "):
            ports = f"--listen 127.0.0.1:{self.ports['8000']} --admin 127.0.0.1:{self.ports['9901']}"
            line = line.replace("run app.py", f"run app.py {ports}")
        return super().type(line, **env)

    def configure(self) -> None:
        """Saves the configuration that the section shows; the admin listener gets this reader's port."""
        admin = f"admin: {{listen: 127.0.0.1:{self.ports['9901']}}}"
        self.save("proxy.yaml", f"{self.text('yaml')}\n{admin}\n")

    def read(self, promised: str) -> None:
        """Waits until the last command has printed what the page promises."""
        wait_until(lambda: promised in self.running[-1].log.read_text(), START, self.tails)

    def chat(self) -> None:
        """Asks a chat through the address of the page: its session is whole, also after a reconnect."""
        wait_until(lambda: http_status(f"{self.url}/health") == 200, START, self.tails)

        async def scenario() -> None:
            async with Clients(self.url, delay=0.1) as clients:
                chat = await clients.open(BROWSER)
                journal = Journal(self.folder.parent / "journal.jsonl")
                await chat.check(journal)
                await chat.drop()
                await chat.check(journal)

        asyncio.run(scenario())

    def interrupt(self) -> None:
        """Presses Ctrl-C in every terminal, the last one first."""
        while self.running:
            process = self.running.pop()
            assert process.stop(signal.SIGINT, START) == 0, process.tail()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the checkout, and a folder with an app."""
    home = tmp_path_factory.mktemp("home")
    (home / Path(CHECKOUT).name).symlink_to(ROOT)
    (home / "app").mkdir()
    (home / "app" / "app.py").write_text(APP.read_text(encoding="utf-8"), encoding="utf-8")
    return home


def test_what_the_first_pages_tell_works_as_it_stands(machine: Path) -> None:
    """Every command of both pages succeeds in their order, prints what they show, and carries a chat."""
    app, works, hand = (Newcomer(machine, "quickstart.md", heading) for heading in SECTIONS)
    readme = Newcomer(machine, "../README.md", "Two commands")
    ready = re.findall(r"all \d replicas are ready", app.text("text"))[0]
    works.ports = app.ports
    readme.ports |= {port: hand.ports[port] for port in ("8001", "8002")}
    try:
        for line in app.commands():  # the virtual environment, both packages, and `run`
            app.type(line)
        app.read(ready)
        app.chat()
        for line in works.commands():
            works.type(line)
        app.interrupt()

        *first, alone = readme.commands()
        for line in first:
            readme.type(line)
        readme.read(ready)
        readme.chat()
        readme.interrupt()

        *instances, check, serve, status = hand.commands()
        for line in instances:
            hand.type(line)
        readme.configure()
        readme.type(alone)
        readme.chat()
        readme.interrupt()

        hand.configure()
        hand.type(check)
        hand.type(serve)
        hand.chat()
        wait_until(lambda: hand.type(status).split() == hand.text("text").split(), START, hand.tails)
        hand.interrupt()
    finally:
        for newcomer in (app, readme, hand):
            print(newcomer.tails())
            newcomer.end()
