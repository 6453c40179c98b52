"""HTTP/2 as curl and the programs of nghttp2 speak it, before real Chainlit."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.http2_programs import program
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.size import sized
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

NAME = "chat.test"
TABS = 20
REQUESTS = sized(2_000, in_full=20_000)


class Caller:
    """curl, as it has to be called for one proxy."""

    def __init__(self, program: str, proxy: ProxyProcess, authority: Authority, folder: Path) -> None:
        port = proxy.url.rpartition(":")[2]
        self.root = f"https://{NAME}:{port}"
        self.folder = folder
        self._command = [
            *(program, "--silent", "--show-error", "--max-time", "60", "--http2"),
            *("--cacert", str(authority.file), "--resolve", f"{NAME}:{port}:127.0.0.1"),
        ]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Have it begin."""
        command = [*self._command, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self.folder)

    def __call__(self, *arguments: str) -> str:
        """What it prints."""
        done = self.start(*arguments)
        printed, _ = done.communicate()
        assert done.returncode == 0, (done.returncode, printed)
        return printed


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


@pytest.fixture
def proxy(make_proxy: MakeProxy, authority: Authority) -> ProxyProcess:
    """A proxy with TLS."""
    return make_proxy(tls=authority.issue(NAME), log={"access": True, "format": "json"})


@pytest.fixture
def call(proxy: ProxyProcess, authority: Authority, tmp_path: Path) -> Caller:
    """Has the program ask the proxy."""
    return Caller(program("curl"), proxy, authority, tmp_path)


def test_a_page_with_all_its_files(call: Caller, proxy: ProxyProcess) -> None:
    """The page and its files come over one connection, the same as in HTTP/1.1."""
    page = call(f"{call.root}/")
    files = sorted(set(re.findall(r'(?:src|href)="\.?(/(?:assets|public)[^"]+)"', page)))
    assert files
    told = "%{http_version} %{response_code} %{num_connects}\n"
    urls = [part for name in files for part in ("--output", "/dev/null", f"{call.root}{name}")]
    lines = call("--write-out", told, *urls).splitlines()
    assert lines == ["2 200 1"] + ["2 200 0"] * (len(files) - 1)
    for name in files:
        assert call(f"{call.root}{name}") == call("--http1.1", f"{call.root}{name}")
    assert proxy.metric("chainlit_proxy_streams_total") == 1 + 2 * len(files)


def test_tabs_that_poll(call: Caller, proxy: ProxyProcess) -> None:
    """Twenty Engine.IO sessions are opened, each is spoken to, and all poll at once over one connection."""
    path = f"{call.root}/ws/socket.io/?EIO=4&transport=polling"
    sids = [json.loads(call(path)[1:])["sid"] for _ in range(TABS)]
    for number, sid in enumerate(sids):
        connect = "40" + json.dumps({"clientType": "webapp", "sessionId": f"tab-{number:08}"})
        assert call("--data-binary", connect, f"{path}&sid={sid}") == "OK"
    before = proxy.metric("chainlit_proxy_connections_total", protocol="h2")
    polls = [part for n, sid in enumerate(sids) for part in ("--output", f"poll{n}", f"{path}&sid={sid}")]
    told = call("--parallel", "--parallel-max", str(TABS), "--write-out", "%{response_code}\n", *polls)
    assert told.split() == ["200"] * TABS
    assert all((call.folder / f"poll{n}").read_text().startswith("4") for n in range(TABS))
    assert proxy.metric("chainlit_proxy_connections_total", protocol="h2") - before < TABS


def test_the_proxy_ends(call: Caller, proxy: ProxyProcess) -> None:
    """What is on its way when the proxy is told to end comes whole, and curl has nothing to complain of."""
    page = call(f"{call.root}/")
    names = re.findall(r'(?:src|href)="\.?(/assets[^"]+\.js)"', page)
    whole = max((call(f"{call.root}{name}") for name in names), key=len)
    (name,) = [name for name in names if call(f"{call.root}{name}") == whole]
    running = call.start("--limit-rate", str(len(whole) // 3), "--output", "slowly", f"{call.root}{name}")
    slowly = call.folder / "slowly"
    wait_until(lambda: slowly.exists() and slowly.stat().st_size, 20, proxy.tail)
    assert proxy.stop(timeout=60) == 0
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert slowly.read_text() == whole


def test_a_page_by_nghttp(proxy: ProxyProcess) -> None:
    """It asks for a page with all that the page needs, by one connection, and sees no error."""
    root = proxy.url.replace("http://", "https://")
    command = [program("nghttp"), "-v", "--get-assets", "--null-out", "--no-verify-peer", f"{root}/"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    statuses = re.findall(r"recv \(stream_id=\d+\) :status: (\d+)", shown)
    assert len(statuses) > 1
    assert set(statuses) == {"200"}
    assert "recv RST_STREAM" not in shown
    assert "recv GOAWAY" not in shown
    assert "send GOAWAY" in shown
    assert proxy.metric("chainlit_proxy_connections_total", protocol="h2") == 1


def test_load_by_h2load(proxy: ProxyProcess) -> None:
    """Twenty connections with ten requests each at once: all are answered, and nobody was over a limit."""
    root = proxy.url.replace("http://", "https://")
    command = [program("h2load"), f"-n{REQUESTS}", "-c20", "-m10", f"{root}/favicon"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    assert f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in shown, shown
    assert f"status codes: {REQUESTS} 2xx" in shown, shown
    assert proxy.metric("chainlit_proxy_streams_total") == REQUESTS
    assert proxy.metric("chainlit_proxy_limits_hit_total") == 0
    assert proxy.metric("chainlit_proxy_open_streams") == 0
