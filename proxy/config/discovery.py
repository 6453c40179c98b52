"""`discovery`: where backends are found that come and go without a reload."""

from pydantic import Field, ValidationInfo, field_validator

from proxy.config import values as v
from proxy.config.problems import got
from proxy.config.sections import Settings


class DnsSettings(Settings):
    """Backends that DNS names."""

    name: v.HostName | None = None
    """The name whose addresses are the backends, such as that of a headless service; with one this source is
    on. It needs the extra `dns`."""
    records: v.Records = v.Records.A
    """Which records are asked for: a or aaaa for addresses, srv for names with ports, of which those of the
    best priority are taken."""
    port: v.Port | None = Field(default=None, validate_default=True)
    """Where the instances listen, for a and aaaa. SRV records hold it."""
    servers: v.DnsServers = ()
    """Whom to ask, instead of the servers of the system."""
    shortest: v.Seconds = 1.0
    """Seconds between two questions at least, however short the time to live of an answer is."""
    longest: v.Seconds = 30.0
    """Seconds between two questions at most, however long the time to live of an answer is. After a failure
    the pause grows from shortest to this."""

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
    """Backends that are the endpoints of a Service."""

    service: v.Label | None = None
    """The Service whose endpoints are the backends; with one this source is on. It needs the extra
    `kubernetes`, and a Role that may list and watch endpointslices."""
    namespace: v.Label | None = None
    """The namespace of the Service; by default that of the proxy's own pod, or `default` with a
    kubeconfig."""
    port: v.Label | None = None
    """The name of the Service's port behind which the instances listen, where it has several."""
    kubeconfig: v.File | None = None
    """The file that tells how to reach the API server. By default the proxy's own pod and its service account
    tell."""


class DockerSettings(Settings):
    """Backends that are containers of this machine."""

    label: v.Given | None = None
    """The label of the containers that are the backends, KEY or KEY=VALUE, such as
    com.docker.compose.service=chainlit; with one this source is on. It needs the extra `docker`."""
    port: v.Port = 8000
    """Where the instances listen in their containers; 8000 is Chainlit's own."""
    network: v.Given | None = None
    """The network in which the containers are reached, where they are in several."""
    socket: v.SocketPath = "/var/run/docker.sock"
    """The socket of the engine. Who may write there rules the machine: give the proxy one that lets through
    GET alone."""


class DiscoverySettings(Settings):
    """Where backends are found while it runs, beside those of backends or instead."""

    file: v.File | None = None
    """A YAML or JSON file with more backends, a list of entries as those of `backends`, or in the form of
    Prometheus' file_sd. It is watched; a bad or empty one is logged, and the last good one stays."""

    dns: DnsSettings = DnsSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    docker: DockerSettings = DockerSettings()

    def parts(self) -> dict[str, object]:
        """What is configured of each source that is on, in the order in which their backends are taken."""
        parts = {
            "file": self.file,
            "dns": self.dns if self.dns.name else None,
            "kubernetes": self.kubernetes if self.kubernetes.service else None,
            "docker": self.docker if self.docker.label else None,
        }
        return {name: part for name, part in parts.items() if part is not None}
