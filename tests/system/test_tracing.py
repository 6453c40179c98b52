"""Spans reach a collector that takes OTLP over HTTP."""

import gzip
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.instances import http_status
from tests.support.processes import free_port
from tests.support.proxy_process import ProxyProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system


class Collector(ThreadingHTTPServer):
    """Takes spans, and answers as a backend would."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        """Read what was sent."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(told["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_GET(self) -> None:
        """As BaseHTTPRequestHandler."""
        self._answer()

    def do_POST(self) -> None:
        """As BaseHTTPRequestHandler."""
        assert self.path == "/v1/traces"
        assert self.headers["Content-Type"] == "application/x-protobuf"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self._answer()

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running one."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def start(collector: Collector, endpoint: str, folder: Path) -> ProxyProcess:
    """A proxy that sends its spans there, before a backend that answers."""
    proxy = ProxyProcess(
        {
            "listen": f"127.0.0.1:{free_port()}",
            "admin": {"listen": f"127.0.0.1:{free_port()}"},
            "backends": [{"name": "a", "url": collector.url}],
            "otel": {"endpoint": endpoint, "service": "chat"},
        },
        folder,
    )
    proxy.launch()
    proxy.wait_health({"a": "healthy"})
    return proxy


def test_spans_reach_a_collector(collector: Collector, tmp_path: Path) -> None:
    """Each request has a span there within seconds; those that have gathered are sent at the end."""
    proxy = start(collector, f"{collector.url}/v1/traces", tmp_path)
    try:
        assert http_status(f"{proxy.url}/first") == 200
        wait_until(lambda: collector.spans, 30, proxy.tail)
        assert http_status(f"{proxy.url}/last") == 200
    finally:
        proxy.stop(signal.SIGTERM, 20)
    told = [{pair.key: pair.value for pair in span.attributes} for span in collector.spans]
    assert [one["url.path"].string_value for one in told] == ["/first", "/last"]
    assert {one["chainlit_proxy.backend"].string_value for one in told} == {"a"}
    assert {one["http.response.status_code"].int_value for one in told} == {200}
    assert collector.services == {"chat"}


def test_a_collector_that_is_away_disturbs_nobody(collector: Collector, tmp_path: Path) -> None:
    """Requests are served, and the proxy ends when it is told to."""
    proxy = start(collector, f"http://127.0.0.1:{free_port()}/v1/traces", tmp_path)
    try:
        for _ in range(20):
            assert http_status(f"{proxy.url}/x") == 200
    finally:
        proxy.stop(signal.SIGTERM, 20)
    assert not collector.spans
