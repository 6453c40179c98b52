"""TLS: what clients are offered, what backends have to show, and the pair of files of a listener.

Rules: TLS 1.2 and 1.3 with forward secrecy only, no compression, no renegotiation, ALPN `http/1.1`. A new
pair is tried in a context of its own first, so a bad one never takes the place of a good one. No message
holds anything of what the files contain. Nothing here knows sockets or the configuration.
"""

import calendar
import logging
import os
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("proxy.tls")

# Forward secrecy and authenticated encryption; those of TLS 1.3 are all so, and OpenSSL's own choice.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_EXPLICIT, _UTC_TIME = 0xA0, 0x17  # tags of DER


class CertificateError(Exception):
    """A pair cannot be used; `key` is the setting that is to blame: `cert`, `key` or `ca`."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """What a listener offers, with the pair of these PEM files. Raises CertificateError."""
    expiry(_read("cert", cert))
    _read("key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load(context, cert, key)
    return context


def expiry(pem: str) -> float:
    """Unix time at which the first certificate of a PEM text expires. Raises CertificateError."""
    found = _PEM.search(pem)
    try:
        if found is None:
            raise ValueError
        return _not_after(ssl.PEM_cert_to_DER_cert(found[0]))
    except (ValueError, IndexError):
        raise CertificateError("cert", "must hold a certificate in PEM form") from None


@dataclass(frozen=True, slots=True)
class Trust:
    """How the certificate of a backend is looked at, and the name that it has to bear and is asked for."""

    context: ssl.SSLContext
    server_name: str


def client_context(ca: str | None, *, verify: bool) -> ssl.SSLContext:
    """What believes the authorities in the PEM file `ca`, or those of the system. Raises CertificateError."""
    if ca is not None:
        _read("ca", ca)
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError:
        raise CertificateError("ca", "must hold certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Certificate:
    """The pair of the listeners; created by the app, looked at by the plane's ticker.

    New handshakes meet the pair that was loaded last; connections that are open keep theirs.
    """

    def __init__(self, cert: str, key: str) -> None:
        """Raises CertificateError."""
        self.cert = cert
        self.key = key
        self.failures = 0  # changed pairs that could not be used
        self._stamp = self._stamps()  # before they are read: what changes meanwhile is seen
        self.context = server_context(cert, key)
        self.expires = 0.0  # unix time
        self._note_expiry()

    def reload_if_changed(self) -> None:
        """Load the pair again if its files have changed; a bad one is logged and the old one kept."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            server_context(self.cert, self.key)
            self._stamp = None  # should the files change between the two, we look again
            _load(self.context, self.cert, self.key)
            self._note_expiry()
        except CertificateError as error:
            self.failures += 1
            log.error("the changed certificate is not used, the old one stays: tls.%s %s", error.key, error)  # noqa: TRY400 - the user's mistake
        else:
            log.info("the certificate was read again: %s", self.cert)
            self._stamp = stamp

    def _note_expiry(self) -> None:
        self.expires = expiry(_read("cert", self.cert))
        if self.expires < time.time():
            log.warning("the certificate has expired: %s", self.cert)

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...] | None:
        return _stamp(self.cert), _stamp(self.key)

    def __repr__(self) -> str:
        return f"<Certificate {self.cert} failures={self.failures}>"


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - twice a second
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(key: str, file: str) -> str:
    try:
        return Path(file).read_bytes().decode("latin-1")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        raise CertificateError(key, f"cannot be read: {reason}") from None


def _load(context: ssl.SSLContext, cert: str, key: str) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedError:
        raise CertificateError("key", "must hold a private key that is not encrypted") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(
                "key", "must hold the private key of the certificate in tls.cert"
            ) from None
        if error.reason in {"EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"}:
            raise CertificateError("cert", f"must hold a stronger certificate: {error.reason}") from None
        raise CertificateError("key", "must hold a private key in PEM form") from None
    except OSError as error:  # between the look and the load
        raise CertificateError("cert", f"cannot be read: {error.strerror}") from None


class _EncryptedError(Exception):
    """OpenSSL asks for the password of a key."""


def _no_password() -> str:
    raise _EncryptedError  # without this it would ask at the terminal


def _not_after(der: bytes) -> float:
    """Unix time of a certificate's notAfter: RFC 5280 section 4.1."""
    _, at, _ = _item(der, 0)  # Certificate
    _, at, _ = _item(der, at)  # TBSCertificate
    tag, _, end = _item(der, at)
    if tag == _EXPLICIT:  # its version
        at = end
    for _ in range(3):  # serial number, signature, issuer
        _, _, at = _item(der, at)
    _, at, _ = _item(der, at)  # Validity
    _, _, at = _item(der, at)  # notBefore
    tag, at, end = _item(der, at)
    text = der[at:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text  # section 4.1.2.5.1
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _item(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the content of the DER item at `at`."""
    size = der[at + 1]
    start = at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start], "big")
    return der[at], start, start + size
