"""The settings of what is told of requests: to the log, to a collector of spans, in responses."""

from pydantic import Field

from proxy.config import values as v
from proxy.config.sections import Settings


class LogSettings(Settings):
    """`log`: what is written to standard error."""

    format: v.FormatChoice = Field(
        default=v.LogFormat.CONSOLE, description="console for people, json for machines: one object per line."
    )
    access: v.Flag = Field(
        default=True,
        description="Whether each request gets a line with its backend, its evidence and the outcome. The "
        "default of `run` is false.",
    )
    level: v.LevelChoice = Field(
        default=v.LogLevel.INFO, description="The least important lines that are written."
    )


class OtelSettings(Settings):
    """`otel`: spans for OpenTelemetry."""

    endpoint: v.OtlpUrl = Field(
        default=None,
        description="Where spans are sent, one for each request and websocket: a collector that takes OTLP "
        "over HTTP. Without it there are none. It needs the extra otel.",
    )
    service: v.Text = Field(
        default="chainlit-proxy",
        description="What the proxy is called in traces: the service.name of its spans.",
    )
    sample: v.Share = Field(
        default=1.0,
        description="The share of traces that begin here and are sent. Those that a request brings along in "
        "traceparent go by the decision in it. A span takes more CPU time than its request.",
    )


class ResponseSettings(Settings):
    """`responses`: what they tell of the proxy."""

    backend: v.Flag = Field(
        default=False,
        description="Whether responses name the backend that gave them, as X-Chainlit-Backend. It shows how "
        "many there are and when they change.",
    )
    timing: v.Flag = Field(
        default=False,
        description="Whether responses of backends carry Server-Timing, which the developer tools of "
        "browsers show: how long the backend took to begin its answer, and by what evidence it was chosen.",
    )
