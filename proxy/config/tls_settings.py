"""The sections about TLS: what clients meet, how certificates are had, and whom a backend has to be."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from proxy.config import values as v
from proxy.config.problems import KeyPath
from proxy.config.sections import Settings


class PairSettings(Settings):
    """One of several certificates."""

    cert: v.File
    """A PEM file with the certificate, followed by those that lead to its root."""
    key: v.File
    """The PEM file of its private key, not encrypted."""


class EabSettings(Settings):
    """An account at the authority that the new one is bound to, if it requires that."""

    kid: v.Given | None = None
    """The name of the key, as the authority shows it."""
    key: v.MacKey | None = Field(default=None, validate_default=True)
    """The key itself, never shown."""

    @field_validator("key")
    @classmethod
    def _are_two(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if (value is None) != (info.data.get("kid", value) is None):
            raise ValueError("must be set together with eab.kid")
        return value


class AcmeSettings(Settings):
    """A certificate that the proxy gets and renews by ACME. Requires the extra `acme`."""

    domains: v.Domains = ()
    """The site's names, at most 100, all in one certificate. Naming one turns ACME on, and accepts the
    authority's terms. `listen` needs a plain address such as http://0.0.0.0:80, where the authority checks
    them."""
    email: v.Email | None = None
    """Where the authority may write to."""
    directory: v.DirectoryUrl = "https://acme-v02.api.letsencrypt.org/directory"
    """The authority's directory. For tests use https://acme-staging-v02.api.letsencrypt.org/directory, whose
    certificates are not trusted."""
    ca: v.File | None = None
    """A PEM file with the authorities that may have signed the directory's own certificate."""
    eab: EabSettings = EabSettings()
    folder: v.File | None = None
    """Where the account, the keys and the certificate are kept. Proxies that share it share the certificate.
    By default acme in the state folder."""


class TlsSettings(Settings):
    """The certificates for clients; without one, plain HTTP."""

    cert: v.File | None = None
    """A PEM file with the certificate, followed by those that lead to its root. The TCP addresses of `listen`
    then speak only TLS, except those that begin with http://."""
    key: v.File | None = Field(default=None, validate_default=True)
    """The PEM file of its private key, not encrypted. Both files are read again when they change."""

    @field_validator("key")
    @classmethod
    def _is_a_pair(cls, value: str | None, info: ValidationInfo) -> str | None:
        cert = info.data.get("cert", "unreadable")
        if value is None and cert not in {None, "unreadable"}:
            raise ValueError("must name the file of the private key, because tls.cert is set")
        if value is not None and cert is None:
            raise ValueError("must not be set without tls.cert")
        return value

    certificates: Annotated[
        tuple[PairSettings, ...], v.Allowed("a list of mappings, each with a cert and a key")
    ] = ()
    """More certificates, chosen by the name that a client asks for (SNI). For other names it gets that of
    tls.cert, else the first of these, else that of tls.acme."""
    min_version: v.TlsVersion = "1.2"
    """The oldest TLS version."""
    http2: v.Flag = True
    """Whether clients can use HTTP/2 as well as HTTP/1.1. Backends get HTTP/1.1 either way."""
    http2_websockets: v.Flag = False
    """Whether HTTP/2 clients may open websockets on the same connection (RFC 8441). Without it browsers open
    an HTTP/1.1 connection for each."""
    hsts: v.WholeSeconds = 0
    """Seconds for which browsers must use HTTPS (Strict-Transport-Security); 0 sends no such header. You
    cannot take it back before that time is over, so begin with 300."""
    acme: AcmeSettings = AcmeSettings()

    def pairs(self) -> Iterator[tuple[KeyPath, str, str]]:
        """The place, certificate and key of each pair of files that is named."""
        if self.cert is not None and self.key is not None:
            yield ("tls",), self.cert, self.key
        for index, pair in enumerate(self.certificates):
            yield ("tls", "certificates", index), pair.cert, pair.key

    @property
    def is_on(self) -> bool:
        """Whether the TCP listeners speak TLS."""
        return bool(self.cert or self.certificates or self.acme.domains)


class BackendTlsSettings(Settings):
    """How a backend with an https url proves its identity."""

    ca: v.File | None = None
    """A PEM file with the authorities that may have signed its certificate, instead of the system's."""
    server_name: v.HostName | None = None
    """The name that its certificate must contain, also sent as SNI. By default the host of the url."""
    verify: v.Flag = True
    """Whether its certificate is verified. If not, anyone between proxy and backend can read and change
    everything."""
