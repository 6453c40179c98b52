"""HTTPS by naming the domain: one command, a real authority, real Chainlit."""

import http.client
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.support.pebble_server import Pebble
from tests.support.processes import free_port
from tests.support.proxy_process import ProxyProcess
from tests.support.run_command import START, RunCommand
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

NAME = "chat.test"
RENEWED = "chainlit_proxy_certificate_renewals_total"
LIFE = 30  # seconds: it is renewed after 20 or 21


@pytest.fixture
def proof_port() -> int:
    """Where the proxy is asked for proofs."""
    return free_port()


@pytest.fixture
def pebble(tmp_path: Path, proof_port: int) -> Iterator[Pebble]:
    """An authority whose certificates are soon over."""
    folder = tmp_path / "pebble"
    folder.mkdir()
    authority = Pebble(folder, proof_port, certificateValidityPeriod=LIFE)
    authority.start()
    yield authority
    authority.end()


def connect(port: int, trust: ssl.SSLContext) -> http.client.HTTPSConnection:
    """A connection to the proxy under its public name."""
    raw = socket.create_connection(("127.0.0.1", port), 10)
    connection = http.client.HTTPSConnection(NAME, timeout=10)
    connection.sock = trust.wrap_socket(raw, server_hostname=NAME)
    return connection


def serial(connection: http.client.HTTPSConnection) -> str:
    """The number of the certificate that was shown on it."""
    assert isinstance(connection.sock, ssl.SSLSocket)
    return str((connection.sock.getpeercert() or {})["serialNumber"])


def page(connection: http.client.HTTPSConnection) -> int:
    """The status of the app's page."""
    connection.request("GET", "/", headers={"Host": NAME})
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.timeout(300)
def test_one_command(pebble: Pebble, proof_port: int, tmp_path: Path) -> None:
    """`run --domain` serves the app by HTTPS with a certificate that is renewed while connections go on."""
    folder = tmp_path / "app"
    folder.mkdir()
    acme = {"directory": pebble.directory, "ca": pebble.ca, "email": "ops@chat.test"}
    run = RunCommand(folder, yaml.safe_dump({"tls": {"acme": acme}}))
    port = int(run.url.rpartition(":")[2])
    run.command += ["--domain", NAME, "--listen", f"http://127.0.0.1:{proof_port}", "--state", "state"]
    run.launch()
    try:
        wait_until(lambda: run.metric(RENEWED, result="renewed") if run.health() else 0, 2 * START, run.tail)
        wait_until(run.all_healthy, 2 * START, run.tail)
        trust = pebble.client()
        with closing(trusted(run, port, trust)) as kept:
            assert page(kept) == 200
            with closing(http.client.HTTPConnection("127.0.0.1", proof_port, timeout=10)) as plain:
                plain.request("POST", "/x?y", b"body", headers={"Host": NAME})
                led = plain.getresponse()
                assert (led.status, led.headers["Location"]) == (308, f"https://{NAME}/x?y")
            first = serial(kept)
            with closing(trusted(run, port, trust, but=first)) as fresh:
                assert page(fresh) == page(kept) == 200
        assert run.metric("chainlit_proxy_certificate_expiry_seconds", certificate=NAME) > 0
        assert f"open https://{NAME}:{port}" in run.tail(200)
        events = json.loads(run.get("/api/events"))
        assert [event for event in events if event["kind"] == "certificate"]
        assert run.stop() == 0
    finally:
        run.kill9()
    (pair,) = (folder / "state" / "acme").glob("127.0.0.1-*/chat.test-*.pem")
    assert stat.S_IMODE(pair.stat().st_mode) == 0o600


def trusted(run: RunCommand, port: int, trust: ssl.SSLContext, but: str = "") -> http.client.HTTPSConnection:
    """Waits for `_trusted`."""
    found = wait_until(lambda: _trusted(port, trust, but), 2 * START, run.tail)
    assert found is not None
    return found


def _trusted(port: int, trust: ssl.SSLContext, but: str = "") -> http.client.HTTPSConnection | None:
    """A connection on which a certificate was shown that is trusted, and another one."""
    try:
        connection = connect(port, trust)
    except ssl.SSLError:
        return None
    if serial(connection) != but:
        return connection
    connection.close()
    return None


def test_the_end_does_not_wait_for_the_authority(tmp_path: Path) -> None:
    """An authority that accepts and says nothing holds up neither clients nor the end of the process."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listen, plain = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        acme = {
            "domains": NAME,
            "directory": f"https://127.0.0.1:{silent.getsockname()[1]}/dir",
            "folder": str(tmp_path / "state"),
        }
        config = {
            "listen": listen,
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
            "backends": [{"url": f"http://127.0.0.1:{free_port()}"}],
            "tls": {"acme": acme},
        }
        proxy = ProxyProcess(config, tmp_path)
        config["listen"] = [listen, f"http://{plain}"]
        proxy.launch()
        try:
            silent.settimeout(60)
            asked, _ = silent.accept()
            anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
            client = connect(int(listen.rpartition(":")[2]), anybody)
            client.close()
            assert proxy.stop(timeout=15) == 0
            asked.close()
        finally:
            proxy.kill9()
