"""A server that answers at the name of an instance, and is none, gets nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from proxy.sessions.proof import proof
from tests.support.proxy_process import ProxyProcess, config_for
from tests.support.sharing import Instance

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SECRET = "known-to-our-instances"


@pytest.fixture
def stranger() -> Iterator[ThreadingHTTPServer]:
    """It answers everything with 200, and notes what it gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append((self.path, self.headers.get("Cookie")))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    got: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got = got  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """One of ours, with the secret."""
    env = {"CHAINLIT_PROXY_HEALTH_SECRET": SECRET}
    made = Instance("a", tmp_path, f"sqlite://{tmp_path}/sessions.db", env=env)
    made.launch()
    made.wait_ready()
    yield made
    made.kill9()
    print(made.tail())


def test_only_who_proves_itself_gets_requests(
    instance: Instance, stranger: ThreadingHTTPServer, tmp_path: Path
) -> None:
    """Ours is healthy, the stranger is down for what it lacks, and no cookie of a login goes there."""
    at = f"http://127.0.0.1:{stranger.server_port}"
    config = config_for([], health={"interval": 0.5, "timeout": 2, "secret": ["newer", SECRET]})
    config["backends"] = [{"name": "a", "url": instance.url}, {"name": "b", "url": at}]
    proxy = ProxyProcess(config, tmp_path)
    proxy.start()
    try:
        proxy.wait_health({"a": "healthy", "b": "down"})
        assert "does not know health.secret" in proxy.backends()["b"]["reason"]
        for number in range(20):
            cookie = {"Cookie": "access_token=SECRETJWT", "User-Agent": str(number)}
            with urlopen(Request(f"{proxy.url}/health", headers=cookie), timeout=30) as answer:
                assert answer.status == 200
        assert {path for path, _ in stranger.got} == {"/health"}  # type: ignore[attr-defined]
        assert {cookies for _, cookies in stranger.got} == {None}  # type: ignore[attr-defined]
        given = {"X-Chainlit-Proxy-Challenge": "1"}
        with urlopen(Request(f"{proxy.url}/health", headers=given), timeout=30) as answer:
            assert answer.headers["X-Chainlit-Proxy-Proof"] is None, "a stranger could ask for a proof"
    finally:
        proxy.kill9()
        print(proxy.tail())


def test_an_instance_answers_a_challenge(instance: Instance) -> None:
    """Each answer carries the proof, that of an error as well; without a challenge there is none."""
    for path in ("/health", "/project/nothing"):
        request = Request(f"{instance.url}{path}", headers={"X-Chainlit-Proxy-Challenge": "abc"})
        try:
            answer = urlopen(request, timeout=30)
        except HTTPError as error:
            answer = error
        with answer:
            assert answer.headers["X-Chainlit-Proxy-Proof"] == proof([SECRET], b"abc").decode()
    with urlopen(f"{instance.url}/health", timeout=30) as answer:
        assert answer.headers["X-Chainlit-Proxy-Proof"] is None
