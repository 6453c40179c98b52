"""`discovery`: where backends are found that come and go without a reload."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from proxy.config import values as v
from proxy.config.problems import got
from proxy.config.sections import Settings

SWITCHES = {"file": "", "dns": "name", "kubernetes": "service", "docker": "label"}
"""Each source, in the order in which their backends are taken, and the key of it that turns it on."""


class DnsSettings(Settings):
    """`discovery.dns`: the addresses of a name."""

    name: v.DnsName = Field(
        default=None,
        description="The name whose addresses are the backends, such as that of a headless service; with one "
        "this source is on. It needs the extra `dns`.",
    )
    records: v.RecordsChoice = Field(
        default=v.Records.A,
        description="Which records are asked for: a or aaaa for addresses, srv for names with ports, of "
        "which those of the best priority are taken.",
    )
    port: v.Port = Field(
        default=None,
        validate_default=True,
        description="Where the instances listen, for a and aaaa. SRV records hold it.",
    )
    servers: v.DnsServers = Field(
        default=(),
        description="Whom to ask, instead of the servers of the system.",
    )
    shortest: v.Seconds = Field(
        default=1.0,
        description="Seconds between two questions at least, however short the time to live of an answer is.",
    )
    longest: v.Seconds = Field(
        default=30.0,
        description="Seconds between two questions at most, however long the time to live of an answer is. "
        "After a failure the pause grows from shortest to this.",
    )

    @field_validator("port")
    @classmethod
    def _has_one_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        is_srv = info.data.get("records") is v.Records.SRV
        if value is None and info.data.get("name") is not None and "records" in info.data and not is_srv:
            raise ValueError("must be the port of the instances, unless dns.records is srv")
        if value is not None and is_srv:
            raise ValueError("must be left out, because SRV records hold the port")
        return value

    @field_validator("longest")
    @classmethod
    def _is_not_shorter(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("shortest", value):
            raise ValueError(f"must not be less than dns.shortest{got(value)}")
        return value


class KubernetesSettings(Settings):
    """`discovery.kubernetes`: the endpoints of a Service."""

    service: v.Label = Field(
        default=None,
        description="The Service whose endpoints are the backends; with one this source is on. It needs the "
        "extra `kubernetes`, and a Role that may list and watch endpointslices.",
    )
    namespace: v.Label = Field(
        default=None,
        description="The namespace of the Service; by default that of the proxy's own pod, or `default` "
        "with a kubeconfig.",
    )
    port: v.Label = Field(
        default=None,
        description="The name of the Service's port behind which the instances listen, where it has several.",
    )
    kubeconfig: v.File = Field(
        default=None,
        description="The file that tells how to reach the API server. By default the proxy's own pod and its "
        "service account tell.",
    )


class DockerSettings(Settings):
    """`discovery.docker`: the containers that bear a label."""

    label: v.Given = Field(
        default=None,
        description="The label of the containers that are the backends, KEY or KEY=VALUE, such as "
        "com.docker.compose.service=chainlit; with one this source is on. It needs the extra `docker`.",
    )
    port: v.GivenPort = Field(
        default=8000, description="Where the instances listen in their containers; 8000 is Chainlit's own."
    )
    network: v.Given = Field(
        default=None,
        description="The network in which the containers are reached, where they are in several.",
    )
    socket: v.SocketPath = Field(
        default="/var/run/docker.sock",
        description="The socket of the engine. Who may write there rules the machine: give the proxy "
        "one that lets through GET alone.",
    )


class DiscoverySettings(Settings):
    """`discovery`: backends that come and go without a reload."""

    file: v.File = Field(
        default=None,
        description="A YAML or JSON file with more backends, a list of entries as those of `backends`, or in "
        "the form of Prometheus' file_sd. It is watched; a bad or empty one is logged, and the last good one "
        "stays.",
    )

    dns: DnsSettings = Field(default=DnsSettings(), description="Backends that DNS names.")
    kubernetes: KubernetesSettings = Field(
        default=KubernetesSettings(), description="Backends that are the endpoints of a Service."
    )
    docker: DockerSettings = Field(
        default=DockerSettings(), description="Backends that are containers of this machine."
    )

    def parts(self) -> dict[str, object]:
        """What is configured of each source that is on, in the order in which their backends are taken."""
        parts = {name: getattr(self, name) for name in SWITCHES}
        return {name: part for name, part in parts.items() if is_on(name, part)}


def is_on(source: str, part: Any) -> bool:
    """Whether what stands at a source's key turns it on; it may be data that was not validated."""
    key = SWITCHES[source]
    if key:
        part = part.get(key) if isinstance(part, dict) else getattr(part, key, None)
    return part is not None
