"""The images, really built and run, by `make images`; it takes some minutes."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy import stand_ins
from tests.deploy.container import Container
from tests.deploy.engine import Engine
from tests.docs.pages import ROOT
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif("IMAGES" not in os.environ, reason="builds images, see `make images`"),
    pytest.mark.system,
    pytest.mark.timeout(1800),
]

CONFIG = """
admin: {listen: '127.0.0.1:9901'}
backends: [{url: 'http://127.0.0.1:8001'}]
affinity: {hold: 0}
log: {access: true}
"""
OWN = {
    ".chainlit/config.toml": "[project]\n[UI]\nname = 'Our Bot'\n[meta]\ngenerated_by = '2.12.0'\n",
    "public/own.css": "a style",
}
# What a company's machines have, in both spellings; nobody listens there.
BEHIND_A_PROXY = ("--env", "http_proxy=http://127.0.0.1:1", "--env", "HTTP_PROXY=http://127.0.0.1:1")
MOST_OVER_BASE = {"proxy": 130e6, "chat": 167e6}  # bytes
OF_COMPILED = 10e6  # more bytes of the proxy, whose library is there beside its sources
OF_ARCHIVES = 1.05  # Podman counts the layers' archives, which have a header for each file
# What each has to load before it serves: without bytecode that takes two to three times the CPU time.
LOADED = {"proxy": "proxy.app", "chat": "chainlit.server"}
OF_WITHOUT = 0.75
CPU_TIME = """
import json, os, sys
def loading(**more):
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    command = [sys.executable, "-c", "import {module}"]
    pid = os.posix_spawn(sys.executable, command, {{**os.environ, **more}}, file_actions=silent)
    _, status, used = os.wait4(pid, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime
both = [(loading(), loading(PYTHONPYCACHEPREFIX="/nowhere")) for _ in range(3)]
print(json.dumps([min(times) for times in zip(*both)]))
"""
ASK = "import urllib.request as r; print(r.build_opener(r.ProxyHandler({{}})).open('{}').read().decode())"
Start = Callable[..., Container]


@pytest.fixture
def start(engine: Engine) -> Iterator[Start]:
    """Starts containers, which end with the test."""
    started: list[Container] = []

    def one(image: str, *words: str, command: tuple[str, ...] = ()) -> Container:
        started.append(Container(engine, image, *words, command=command))
        return started[-1]

    yield one
    for container in started:
        container.remove()


@pytest.fixture
def configured(tmp_path: Path) -> tuple[str, ...]:
    """A file for the proxy, as a volume."""
    tmp_path.chmod(0o755)
    (tmp_path / "proxy.yaml").write_text(CONFIG)
    return ("--volume", f"{tmp_path}:/etc/chainlit-proxy:ro")


STORE = ("--env", "CHAINLIT_PROXY_SESSIONS=sqlite:///tmp/sessions.db", "--tmpfs", "/tmp:mode=1777")


def falls_ill_and_recovers(container: Container) -> None:
    """Healthy while it serves, unhealthy while it does not, and healthy again."""
    container.becomes("healthy")
    container.signal("STOP")
    container.becomes("unhealthy")
    container.signal("CONT")
    container.becomes("healthy")


def test_the_proxy_runs(start: Start, proxy_image: str, configured: tuple[str, ...]) -> None:
    """Not as root, without a place to write, and healthy whatever `http_proxy` names, while it serves."""
    container = start(proxy_image, *configured, *BEHIND_A_PROXY)
    falls_ill_and_recovers(container)
    container.may_do_nothing()
    container.stop()


def test_the_app_runs(start: Start, chat_image: str) -> None:
    """The example, as careful, with a folder of its own for uploads and nothing else."""
    container = start(chat_image, *STORE, *BEHIND_A_PROXY)
    falls_ill_and_recovers(container)
    container.may_do_nothing()
    variables = container.sh("tr '\\0' '\\n' < /proc/1/environ")
    assert "sessions.db" not in variables, "the app could read the store's password there"
    container.stop()


def test_an_app_is_used_with_its_own_files(start: Start, chat_image: str, tmp_path: Path) -> None:
    """An app with a configuration and a style sheet in the example's place has both in effect."""
    tmp_path.chmod(0o755)
    shutil.copy(ROOT / "examples/chat/app.py", tmp_path)
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    container = start(chat_image, *STORE, "--volume", f"{tmp_path}:/srv/chat:ro")
    container.becomes("healthy")
    for path, text in {"": "<title>Our Bot</title>", "public/own.css": "a style"}.items():
        assert text in container.python(ASK.format(f"http://127.0.0.1:8000/{path}"))


@pytest.mark.parametrize("build", ["compiled", "interpreted"])
def test_each_build_runs(engine: Engine, start: Start, configured: tuple[str, ...], build: str) -> None:
    """The image has the build that it was asked for, no compiler, and serves."""
    stand_ins.python(engine)
    image = engine.build("proxy", "--build-arg", f"BUILD={build}", name=build)
    container = start(image, *configured)
    container.becomes("healthy")
    assert f"({build})" in container.run("chainlit-proxy", "--version")
    assert container.sh("command -v gcc cc || echo none") == "none"
    container.stop()


@pytest.mark.parametrize("target", ["proxy", "chat"])
def test_an_image_is_small_and_compiled_ahead(
    engine: Engine, request: pytest.FixtureRequest, start: Start, target: str
) -> None:
    """Each module has its bytecode, which a read-only container could not keep; the size is in bounds."""
    image = request.getfixturevalue(f"{target}_image")
    base, whole = (
        int(engine("image", "inspect", "--format", "{{.Size}}", name)) for name in (stand_ins.PYTHON, image)
    )
    print(f"{target}: {(whole - base) / 1e6:.0f} MB over the base")
    most = MOST_OVER_BASE[target]
    if target == "proxy" and os.environ.get("BUILD") != "interpreted":
        most += OF_COMPILED
    assert whole - base < (most * OF_ARCHIVES if engine.is_podman else most)
    container = start(image, "--entrypoint", "sleep", command=("600",))
    sources = "find /opt/chainlit-proxy/lib -name '*.py' -not -path '*/__pycache__/*'"
    missing = container.sh(
        f"{sources} | while read f; do d=${{f%/*}} n=${{f##*/}};"
        ' ls "$d/__pycache__/${n%.py}".cpython-*.pyc > /dev/null 2>&1 || echo "$f"; done'
    )
    assert missing == ""
    first = "import sys, importlib.util as u; import json, asyncio, ssl;"
    told = "print([m for m in (json, asyncio, ssl) if not __import__('os').path.exists(m.__cached__)])"
    assert container.python(first + told) == "[]"


@pytest.mark.parametrize("target", LOADED)
def test_the_bytecode_is_used(request: pytest.FixtureRequest, start: Start, target: str) -> None:
    """A start takes much less CPU time than in the same container without it; the best of three each."""
    image = request.getfixturevalue(f"{target}_image")
    words = ("--entrypoint", "sleep", "--workdir", "/tmp", "--tmpfs", "/tmp:mode=1777")
    container = start(image, *words, command=("600",))
    told = container.python(CPU_TIME.format(module=LOADED[target]))
    used, without = json.loads(told.splitlines()[-1])
    print(f"{LOADED[target]}: {used:.2f} s, without bytecode {without:.2f} s")
    assert used < OF_WITHOUT * without


def test_a_reader_of_the_log_that_stops_holds_nobody(
    engine: Engine, start: Start, proxy_image: str, configured: tuple[str, ...]
) -> None:
    """A log driver that blocks, as those that send by TCP do: requests are answered, and it stops."""
    if engine.is_podman:
        pytest.skip("Podman has no log driver that sends by TCP")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, taken = server.getsockname()[1], list[socket.socket]()

        def accept() -> None:
            with server:
                taken.append(server.accept()[0])  # and never reads

        threading.Thread(target=accept, daemon=True).start()
        driver = ("--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{port}")
        container = start(proxy_image, *configured, *driver, "--log-opt", "mode=blocking")
        container.becomes("healthy")
        many = (
            "import http.client as h\n"
            "for n in range(20000):\n"
            "    if n % 1000 == 0: c = h.HTTPConnection('127.0.0.1', 8000, timeout=20)\n"
            "    c.request('POST', '/' + 'x' * 1000); c.getresponse().read()\n"
            "print('all answered')"
        )
        assert container.python(many) == "all answered"
        metrics = container.python(ASK.format("http://127.0.0.1:9901/metrics"))
        dropped = [
            line
            for line in metrics.splitlines()
            if line.startswith("chainlit_proxy_log_lines_dropped_total ")
        ]
        assert any(float(line.split()[-1]) > 0 for line in dropped), dropped
        container.becomes("healthy")
        for connection in taken:
            connection.close()
        container.stop()


def test_orphans_are_reaped(start: Start, chat_image: str) -> None:
    """What an app's children leave behind is ended by our own first process: `--init` is not needed."""
    container = start(chat_image, *STORE)
    container.becomes("healthy")
    container.sh("(sleep 0.2 & exec sleep 0) & wait")
    zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || true"
    wait_until(lambda: container.sh(zombies) == "", 20, lambda: container.sh(zombies))
    container.stop()
