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
    """A PEM file with the certificate and, behind it, those that lead to its root."""
    key: v.File
    """The PEM file of its private key, not encrypted."""


class EabSettings(Settings):
    """An account at the authority that the new one is bound to, where the authority asks for that."""

    kid: v.Given | None = None
    """The name of the key, as the authority shows it."""
    key: v.MacKey | None = Field(default=None, validate_default=True)
    """The key itself. It is used when an account is made, and never shown."""

    @field_validator("key")
    @classmethod
    def _are_two(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if (value is None) != (info.data.get("kid", value) is None):
            raise ValueError("must be set together with eab.kid")
        return value


class AcmeSettings(Settings):
    """A certificate that the proxy gets and renews itself, by ACME. It needs the extra `acme`."""

    domains: v.Domains = ()
    """The names that clients call the proxy by, at most 100, all of them in one certificate; with one this is
    on, and you agree to the terms of the authority. It reaches each of them on port 80: listen has to hold a
    plain address such as http://0.0.0.0:80."""
    email: v.Email | None = None
    """Where the authority may write to, if it does."""
    directory: v.DirectoryUrl = "https://acme-v02.api.letsencrypt.org/directory"
    """The authority, by the URL of its directory. While you try things out, take
    https://acme-staging-v02.api.letsencrypt.org/directory: its certificates are not trusted, and its limits
    are wide."""
    ca: v.File | None = None
    """A PEM file with the authorities that may have signed the certificate of the directory itself, for one
    of your own network."""
    eab: EabSettings = EabSettings()
    folder: v.File | None = None
    """Where the account, the keys and the certificate are kept, readable by the proxy's user only. Proxies
    that share it share the certificate: one gets it for all. By default acme in the folder of --state, else
    in $STATE_DIRECTORY, else in the user's ~/.local/state/chainlit-proxy."""


class TlsSettings(Settings):
    """The certificates that clients meet; without one, plain HTTP."""

    cert: v.File | None = None
    """A PEM file with the certificate and, behind it, those that lead to its root. With one, the TCP
    addresses of listen speak TLS only, but for those that begin with http://; unix sockets stay plain."""
    key: v.File | None = Field(default=None, validate_default=True)
    """The PEM file of its private key, not encrypted. Both files are read again when they change; a pair that
    cannot be used is logged, and the old one stays."""

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
    """More certificates, by whose names a client is given its own (SNI). One that asks for no known name
    meets the first: that of tls.cert, else the first of these, else that of tls.acme."""
    min_version: v.TlsVersion = "1.2"
    """The oldest version of TLS that is spoken. Every browser since 2020 speaks 1.3."""
    http2: v.Flag = True
    """Whether clients are offered HTTP/2 (ALPN h2) beside HTTP/1.1. Backends are spoken to in HTTP/1.1, and
    websockets have a connection of their own in either case."""
    http2_websockets: v.Flag = False
    """Whether clients that speak HTTP/2 may have websockets on the same connection (RFC 8441). Without it
    browsers open one in HTTP/1.1 for each, whose frames cost less here."""
    hsts: v.WholeSeconds = 0
    """Seconds for which browsers are told to come by HTTPS only (Strict-Transport-Security), 31536000 for a
    year; 0 does not tell them. They cannot be told otherwise before that is over, so begin with 300."""
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
    """Whom a backend with an https url has to be."""

    ca: v.File | None = None
    """A PEM file with the authorities that may have signed its certificate, instead of those of the
    system."""
    server_name: v.HostName | None = None
    """The name that its certificate has to bear, also sent as SNI; without it the host of the url."""
    verify: v.Flag = True
    """Whether its certificate is verified. Without that, whoever is between the proxy and the backend can
    read and change everything."""
