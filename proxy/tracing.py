"""OpenTelemetry spans: one for each exchange, made when it has ended; needs the extra `otel`.

They are made of what the access log is made of, so a request that is under way costs nothing more. A span
is the child of the one that `traceparent` names; the backend gets that field as it came, so its spans stand
beside ours. Query strings, cookies and session ids are in no span. A thread of the SDK sends them in batches;
what a slow collector does not take in time is dropped, and traffic never waits.
"""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

import proxy
from proxy.config.sections import OtelSettings
from proxy.dataplane.record import Record
from proxy.dataplane.stats import LABELS

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

_LAST_BATCH = 3.0  # seconds that the collector has for a batch, and so for the last one
_Value = str | int


class Spans:
    """Makes a span of every exchange that ended; created by the app, called by the data plane."""

    def __init__(self, settings: OtelSettings, exporter: "SpanExporter | None" = None) -> None:
        """`exporter` takes the spans in place of the endpoint."""
        # Imported late: only who wants spans has these, and they take half a second to load.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
        from opentelemetry.trace import SpanKind, Status, StatusCode  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        if exporter is None:
            exporter = OTLPSpanExporter(settings.endpoint, timeout=_LAST_BATCH)
        named = {"service.name": settings.service, "service.version": proxy.__version__}
        provider = TracerProvider(
            ParentBased(TraceIdRatioBased(settings.sample)),
            Resource.create(named),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = provider.get_tracer("chainlit-sticky-proxy", proxy.__version__)
        self._parent: Callable[[dict[str, str]], Context] = TraceContextTextMapPropagator().extract
        self._shut_down: Callable[[], None] = provider.shutdown
        self._server = SpanKind.SERVER
        self._failed: Callable[[str], Status] = partial(Status, StatusCode.ERROR)

    def __call__(self, record: Record) -> None:
        """Make the span of an exchange."""
        ended, head = time.time_ns(), record.request.head
        fields: dict[str, str] = {}
        if record.request.known.trace:
            for name in ("traceparent", "tracestate"):
                fields[name] = b",".join(head.fields.get_all(name.encode())).decode("latin-1")
        span = self._tracer.start_span(
            f"{_method(record)} {record.request.kind.value}",
            self._parent(fields),
            self._server,
            dict(_attributes(record)),
            start_time=ended - int((monotonic() - record.request.started) * 1e9),
        )
        if record.error or record.status >= 500:
            span.set_status(self._failed(record.error))
        span.end(ended)

    def close(self) -> None:
        """Send what has gathered; blocks for a few seconds if the collector does not answer.

        The SDK would wait for half a minute, and for one that answers a byte at a time.
        """
        closing = threading.Thread(target=self._shut_down, daemon=True)
        closing.start()
        closing.join(_LAST_BATCH)


def _method(record: Record) -> str:
    """As the conventions for HTTP spans have it: all that clients make up have one name."""
    return LABELS.get(record.request.head.method, "_OTHER")


def _attributes(record: Record) -> Iterator[tuple[str, _Value]]:
    """The names of the semantic conventions where there are such."""
    head, decision, tunnel = record.request.head, record.decision, record.tunnel
    known = record.request.known
    yield "http.request.method", _method(record)
    yield "url.path", head.path.decode("ascii")
    yield "client.address", known.address
    yield "network.peer.address", known.origin.peer or known.origin.address
    yield "chainlit_proxy.request_id", record.request.id.decode("ascii")
    yield "chainlit_proxy.bytes_in", record.bytes_in
    yield "chainlit_proxy.bytes_out", record.bytes_out
    if record.status:
        yield "http.response.status_code", record.status
    if decision is not None:
        yield "chainlit_proxy.backend", decision.backend.name
        yield "chainlit_proxy.evidence", decision.evidence.value
        yield "chainlit_proxy.outcome", decision.outcome.value
    if tunnel is not None:
        frames_in, frames_out = tunnel.frames
        yield "chainlit_proxy.frames_in", frames_in
        yield "chainlit_proxy.frames_out", frames_out
        if len(tunnel.backends) > 1:
            yield "chainlit_proxy.backends", ">".join(tunnel.backends)
        if tunnel.ended_with is not None:
            yield "chainlit_proxy.close_code", tunnel.ended_with
