"""Who does what a page says has what the page promises: its commands and files, as they stand there."""

import asyncio
import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.docs.pages import found
from tests.docs.test_commands import lines
from tests.support.clients import Clients, assert_nothing_refused, each
from tests.support.instances import APP, http_status
from tests.support.journal import Journal
from tests.support.link import KINDS, Driver, Kind, Transports
from tests.support.run_command import RunCommand
from tests.support.typist import Typist
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

PYTHON_KINDS = [kind for kind in KINDS if kind.driver is Driver.PYTHON]
START = 40.0
NAMES = {"8001": "a", "8002": "b"}
FOLLOWS = re.compile(r"chainlit-proxy (?:top|events --follow)")

MakeTypist = Callable[..., Typist]


@pytest.fixture
def make_typist(tmp_path: Path) -> Iterator[MakeTypist]:
    """Makes a reader of a page who has an app; what was started is ended."""
    made: list[Typist] = []

    def make(page: str, heading: str = "") -> Typist:
        shutil.copy(APP, tmp_path / "app.py")
        typist = Typist(tmp_path, page, heading, JOURNAL=str(tmp_path / "journal.jsonl"))
        made.append(typist)
        return typist

    yield make
    for typist in made:
        typist.end()
        print(typist.tails())


def start(typist: Typist, configuration: str) -> None:
    """Types everything: first what starts instances, then the proxy with its file, then the rest."""
    typist.save("proxy.yaml", f"{configuration}\nadmin: {{listen: 127.0.0.1:{typist.ports['9901']}}}\n")
    for port, name in NAMES.items():
        (line,) = [line for line in typist.commands() if f"--port {typist.ports[port]}" in line]
        root = typist.folder / f"instance-{name}"
        root.mkdir(exist_ok=True)
        has_own_files = line.startswith("chainlit-proxy replica ")
        typist.type(line, INSTANCE=name, **({} if has_own_files else {"CHAINLIT_APP_ROOT": str(root)}))
    typist.type("chainlit-proxy check -c proxy.yaml")
    typist.type("chainlit-proxy serve -c proxy.yaml")
    wait_until(lambda: len(healthy(typist)) == len(NAMES), START, typist.tails)


def healthy(typist: Typist) -> list[str]:
    """The names of the backends that are."""
    try:
        with urllib.request.urlopen(f"{typist.admin}/api/backends", timeout=5) as answer:
            return [entry["name"] for entry in json.load(answer) if entry["health"] == "healthy"]
    except OSError:
        return []


def talk(typist: Typist, below: str = "", kinds: Sequence[Kind] = PYTHON_KINDS) -> None:
    """Sessions of these kinds are whole, by the address that users have, and after a reconnect."""

    async def scenario() -> None:
        journal = Journal(typist.folder / "journal.jsonl")
        async with Clients(typist.url + below, delay=0.1) as clients:
            chats = await clients.open_many(kinds, on=NAMES.values())
            await each(chats, lambda chat: chat.check(journal))
            await each(chats, lambda chat: chat.drop())
            await each(chats, lambda chat: chat.check(journal))
            assert_nothing_refused(chats)

    asyncio.run(scenario())


def test_two_instances_by_hand(make_typist: MakeTypist) -> None:
    """The quickstart's instances and its proxy carry every kind of client; `status` prints what is shown."""
    typist = make_typist("quickstart.md", "Instances that you start yourself")
    start(typist, typist.text("yaml"))
    assert typist.type("chainlit-proxy status").split() == typist.text("text").split()
    talk(typist)


def test_below_a_root_path(make_typist: MakeTypist) -> None:
    """With a prefix on every instance, and in `health.path`, sessions are whole below it, and found again."""
    typist = make_typist("deployment/root-path.md")
    start(typist, typist.text("yaml"))
    talk(typist, "/chat")


def test_mounted_in_fastapi(make_typist: MakeTypist) -> None:
    """Two processes with the page's `main.py` are two instances: sessions are whole, the other routes answer.

    A mounted Chainlit answers some polls with nothing, without a proxy too: who only polls is left out.
    """
    typist = make_typist("deployment/fastapi.md")
    typist.save("main.py", typist.text("python"))
    start(typist, typist.text("yaml"))
    talk(typist, "/chat", [kind for kind in PYTHON_KINDS if kind.transports is not Transports.POLLING] * 2)
    assert http_status(f"{typist.url}/health") == 200
    assert http_status(f"{typist.url}/chat/health") == 200


def test_every_command_for_a_running_proxy(command: RunCommand, tmp_path: Path) -> None:
    """What the pages tell to type against a proxy that runs is done by one, in the order of the pages.

    But for what asks a site as users see it, and the hooks of pods: test_doctor.py, test_load.py and
    test_pod_hooks.py do that.
    """
    typed = [line for piece in found("sh") for _, line in lines(piece)]
    others = "run|serve|replica|check|doctor|load|hook"
    ours = [line for line in typed if re.match(rf"chainlit-proxy (?!{others})", line)]
    assert len({line.split()[1] for line in ours}) > 7
    typist = Typist(tmp_path, "operations.md", CHAINLIT_PROXY_ADMIN=command.admin)
    for line in dict.fromkeys(ours):
        names = sorted(command.backends())
        own = line.replace("http://127.0.0.1:9901", command.admin)
        own = own.replace("https://chat.example.com/ops", command.admin)  # a front that is not here
        own = re.sub(r"(drain|ready|maintenance|--backend) a\b", rf"\1 {names[0]}", own)
        own = own.replace("where 3f2a9c1e", f"where {session_at(command)}")
        if FOLLOWS.match(own):
            own = f"timeout --signal=INT 2 {own} > followed || [ -s followed ]"
        wait_until(lambda: command.rollout()["state"] != "running", START, command.tail)
        typist.type(own)
    wait_until(command.all_healthy, START, command.tail)


def session_at(command: RunCommand) -> str:
    """The id of a session that the proxy has heard of, as a page announces it."""
    identity = "3f2a9c1e-0000-4000-8000-000000000000"
    request = urllib.request.Request(
        f"{command.url}/set-session-cookie",
        json.dumps({"session_id": identity}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
    return identity[:8]
