"""Spans: one for each exchange and tunnel, with what happened and without secrets, below the right parent."""

import asyncio
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy.config import ConfigError, load
from proxy.config.packages import needs
from proxy.config.sections import OtelSettings
from proxy.tracing import Spans
from tests.dataplane.frames import ACCEPT, upgrade
from tests.dataplane.peers import get, ok
from tests.dataplane.scripted import echo
from tests.dataplane.world import World, run

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Makes spans of the world's exchanges."""

    def __init__(self, world: World, **settings: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self._spans = Spans(OtelSettings.model_validate(settings), self._exporter)
        keep = world.ended.append

        def both(exchange: Any) -> None:
            self._spans(exchange)
            keep(exchange)

        world.plane.site.access = both

    async def all(self) -> Sequence[ReadableSpan]:
        """All spans; no more are taken."""
        await asyncio.to_thread(self._spans.close)
        return self._exporter.get_finished_spans()


def test_an_exchange() -> None:
    """Its span says what was asked, who answered and why, and lasts as long as it did."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        collector = Collector(world, service="chat")
        answer = await world.ask(get(b"/x?token=hunter2", world.cookie("a")))
        (span,) = await collector.all()
        assert (span.name, span.kind, span.parent) == ("GET plain", SpanKind.SERVER, None)
        assert span.resource.attributes["service.name"] == "chat"
        assert dict(span.attributes or {}) == {
            "http.request.method": "GET",
            "url.path": "/x",
            "client.address": "127.0.0.1",
            "network.peer.address": "127.0.0.1",
            "http.response.status_code": 200,
            "chainlit_proxy.request_id": (answer.get(b"x-request-id") or b"").decode(),
            "chainlit_proxy.bytes_in": 0,
            "chainlit_proxy.bytes_out": len(answer.body),
            "chainlit_proxy.backend": "a",
            "chainlit_proxy.evidence": "pin_cookie",
            "chainlit_proxy.outcome": "pinned",
        }
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < span.end_time - span.start_time < 10e9
        assert span.status.status_code is StatusCode.UNSET

    run(test)


def test_behind_a_balancer() -> None:
    """The client is the one that a trusted balancer names; who is connected is the peer."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        collector = Collector(world)
        await world.ask(get(b"/x", b"X-Forwarded-For: 2001:db8::7"))
        (span,) = await collector.all()
        told = span.attributes or {}
        assert (told["client.address"], told["network.peer.address"]) == ("2001:db8::7", "127.0.0.1")

    run(test)


def test_a_failure() -> None:
    """What was refused is an error and says why; a method that a client made up has no name of its own."""

    async def test(world: World) -> None:
        collector = Collector(world)
        await world.ask(get(method=b"BREW"))
        (span,) = await collector.all()
        assert span.name == "_OTHER plain"
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "no backend takes requests"
        assert "chainlit_proxy.backend" not in (span.attributes or {})

    run(test, healthy=False, affinity={"hold": 0})


def test_a_tunnel() -> None:
    """A websocket has one span, when it has ended, with its frames and close code."""

    async def test(world: World) -> None:
        collector = Collector(world)
        ours, theirs = await world.websocket()
        ours.say(b"one")
        await theirs.hear()
        ours.peer.close()
        theirs.peer.close()
        await world.until(lambda: world.ended)
        (span,) = await collector.all()
        told = span.attributes or {}
        assert told["http.response.status_code"] == 101
        assert (told["chainlit_proxy.frames_in"], told["chainlit_proxy.frames_out"]) == (1, 0)
        assert told["chainlit_proxy.close_code"] == 1006

    run(test)


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False)])
def test_the_parent(flags: str, sampled: bool) -> None:
    """With a traceparent the span is below it, and is sent if that says so, whatever share is wanted."""

    async def test(world: World) -> None:
        collector = Collector(world, sample=0)
        given = f"00-{TRACE}-{PARENT}-{flags}".encode()
        client = (await world.client()).say(get(b"/x", b"traceparent: " + given))
        backend = await world.backend.accept()
        assert (await backend.request()).get(b"traceparent") == given
        backend.say(ok())
        await client.response()
        spans = await collector.all()
        assert len(spans) == sampled
        for span in spans:
            assert span.parent is not None
            assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)

    run(test)


def test_the_parent_of_a_tunnel() -> None:
    """It is told when the websocket has ended, with the state of its trace; a long one is not kept."""

    async def test(world: World) -> None:
        collector = Collector(world, sample=0)
        for state in (b"a=1,b=2", b"a=" + b"x" * 2000):
            lines = (b"traceparent: 00-%b-%b-01" % (TRACE.encode(), PARENT.encode()), b"tracestate: " + state)
            client = (await world.client()).say(upgrade(b"/ws", *lines))
            backend = await world.backend.accept()
            await backend.request()
            backend.say(ACCEPT)
            assert (await client.response()).status == 101
            client.close()
            backend.close()
            await world.until(lambda: not world.plane.tunnels)
        (span,) = await collector.all()
        assert span.parent is not None
        assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
        assert span.parent.trace_state.to_header() == "a=1,b=2"

    run(test)


def test_the_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the SDK an endpoint is a mistake that says what to install; who sets none does not miss it."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # it cannot be imported
    file = tmp_path / "proxy.yaml"
    file.write_text("otel: {sample: 0.5}")
    assert load(file).otel.endpoint is None
    file.write_text("otel:\n  endpoint: http://127.0.0.1:4318/v1/traces")
    with pytest.raises(ConfigError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (2, "otel.endpoint")
    assert problem.message == needs("otel")


@pytest.mark.parametrize("share", [0, 1])
def test_the_share(share: int) -> None:
    """Traces that begin here are sent as often as is wanted."""

    async def test(world: World) -> None:
        world.backend.serve(echo)
        collector = Collector(world, sample=share)
        for _ in range(3):
            await world.ask(get())
        assert len(await collector.all()) == 3 * share

    run(test)


def test_the_end_does_not_wait_for_a_collector_that_hangs() -> None:
    """A few seconds are for the last spans; then the process goes on to its end."""

    class Hanging(SpanExporter):
        """Takes nothing, for long."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            let_go.wait(60)
            return SpanExportResult.FAILURE

    async def test(world: World) -> None:
        world.backend.serve(echo)
        spans = Spans(OtelSettings.model_validate({"endpoint": "http://127.0.0.1:1"}), Hanging())
        await world.ask(get())
        spans(world.ended[0])
        began = monotonic()
        spans.close()
        assert monotonic() - began < 10
        let_go.set()

    let_go = threading.Event()
    run(test)
