"""TLS: what clients are offered, what backends have to show, and the pairs of files of the listeners.

Rules: TLS 1.2 and 1.3 with forward secrecy only, no compression, no renegotiation, ALPN `http/1.1`, and
`h2` before it where that is wished. A new pair is tried in a context of its own first, so a bad one never
takes the place of a good one. Of several pairs a client meets the first whose certificate bears the name that
it asks for (SNI), else the first. No message holds anything of what the files contain. Nothing here knows
sockets or the configuration.
"""

import calendar
import logging
import os
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("proxy.tls")

# Forward secrecy and authenticated encryption; those of TLS 1.3 are all so, and OpenSSL's own choice.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_EXPLICIT, _UTC_TIME, _EXTENSIONS, _BOOLEAN, _DNS_NAME = 0xA0, 0x17, 0xA3, 0x01, 0x82  # tags of DER
_ALT_NAMES = bytes((0x55, 0x1D, 0x11))  # 2.5.29.17, subjectAltName: RFC 5280 section 4.2.1.6
MINIMUM = ssl.TLSVersion.TLSv1_2


class CertificateError(Exception):
    """A pair cannot be used; `key` is the setting that is to blame: `cert`, `key` or `ca`."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def server_context(
    cert: str, key: str, minimum: ssl.TLSVersion = MINIMUM, place: str = "tls", *, http2: bool = False
) -> ssl.SSLContext:
    """What a listener offers, with the pair of these PEM files. Raises CertificateError.

    `minimum` is the oldest version; `place` is where the configuration names the pair; with `http2` that is
    offered first.
    """
    expiry(_read("cert", cert))
    _read("key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    _load(context, cert, key, place)
    return context


def expiry(pem: str) -> float:
    """Unix time at which the first certificate of a PEM text expires. Raises CertificateError."""
    return read_certificate(pem).until


def read_certificate(pem: str) -> "Facts":
    """What the first certificate of a PEM text says. Raises CertificateError."""
    begin = pem.find(_BEGIN)
    end = pem.find(_END, begin) if begin >= 0 else -1
    try:
        if end < 0:
            raise ValueError
        return _facts(ssl.PEM_cert_to_DER_cert(pem[begin : end + len(_END)]))
    except (ValueError, IndexError):
        raise CertificateError("cert", "must hold a certificate in PEM form") from None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself."""

    since: float  # unix time
    until: float  # unix time
    names: tuple[str, ...]  # of hosts, in small letters; with *. for those below one
    signed_by_itself: bool


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
    """A pair of the listeners; owned by `Certificates`.

    New handshakes meet the pair that was loaded last; connections that are open keep theirs.
    """

    def __init__(
        self,
        cert: str,
        key: str,
        minimum: ssl.TLSVersion = MINIMUM,
        place: str = "tls",
        *,
        http2: bool = False,
    ) -> None:
        """As `server_context`. Raises CertificateError."""
        self.cert = cert
        self.key = key
        self.failures = 0  # changed pairs that could not be used
        self._minimum = minimum
        self._place = place
        self._stamp = self._stamps()  # before they are read: what changes meanwhile is seen
        self.context = server_context(cert, key, minimum, place, http2=http2)
        self.facts = self._look()

    @property
    def expires(self) -> float:
        """When it expires, in unix time."""
        return self.facts.until

    @property
    def name(self) -> str:
        """What it is called in metrics: the first name that it bears, else its file's."""
        return self.facts.names[0] if self.facts.names else Path(self.cert).name

    def reload_if_changed(self) -> bool:
        """Load the pair again if its files have changed; a bad one is logged and the old one kept.

        Return whether another pair is in use now.
        """
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            server_context(self.cert, self.key, self._minimum, self._place)
            self._stamp = None  # should the files change between the two, we look again
            _load(self.context, self.cert, self.key, self._place)
            self.facts = self._look()
        except CertificateError as error:
            self.failures += 1
            what = f"{self._place}.{error.key} {error}"
            log.error("the changed certificate is not used, the old one stays: %s", what)  # noqa: TRY400 - the user's mistake
            return False
        log.info("the certificate was read again: %s", self.cert)
        self._stamp = stamp
        return True

    def _look(self) -> Facts:
        facts = read_certificate(_read("cert", self.cert))
        if facts.until < time.time():
            log.warning("the certificate has expired: %s", self.cert)
        return facts

    def _stamps(self) -> tuple[tuple[int, ...] | None, ...] | None:
        return _stamp(self.cert), _stamp(self.key)

    def __repr__(self) -> str:
        return f"<Certificate {self.cert} failures={self.failures}>"


class Certificates:
    """All pairs of the listeners, the default first; created by the app, looked at by the plane's ticker.

    With one alone no handshake costs more; with several each is given its own by the name that it asks for.
    """

    def __init__(self, pairs: Sequence[Certificate]) -> None:
        """At least one."""
        self.pairs = tuple(pairs)
        self.context = self.pairs[0].context
        self._by_name: dict[str, ssl.SSLContext] = {}
        if len(self.pairs) > 1:
            self._sort()
            self.context.sni_callback = self._choose

    @property
    def failures(self) -> int:
        """Changed pairs that could not be used."""
        return sum(pair.failures for pair in self.pairs)

    def expiries(self) -> dict[str, float]:
        """When each expires, in unix time, by what it is called; of those with one name the first to."""
        found: dict[str, float] = {}
        for pair in self.pairs:
            found[pair.name] = min(pair.expires, found.get(pair.name, pair.expires))
        return found

    def reload_if_changed(self) -> None:
        """As `Certificate`, each of them."""
        changed = [pair.reload_if_changed() for pair in self.pairs]
        if any(changed) and len(changed) > 1:
            self._sort()

    def _sort(self) -> None:
        self._by_name = {name: pair.context for pair in reversed(self.pairs) for name in pair.facts.names}

    def _choose(self, session: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        """As SSLContext.sni_callback."""
        name = (name or "").lower()
        found = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
        if found is not None:
            session.context = found

    def __repr__(self) -> str:
        return f"<Certificates {list(self.pairs)}>"


def _stamp(file: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - twice a second
    except OSError:
        return None
    # The time of change too: a key that could not be read is one that can, once it has its group.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def unreadable(**files: str) -> Iterator[CertificateError]:
    """Yield what is wrong with each file that cannot be read; they are named by their settings."""
    for key, file in files.items():
        try:
            _read(key, file)
        except CertificateError as error:
            yield error


def _read(key: str, file: str) -> str:
    try:
        return Path(file).read_bytes().decode("latin-1")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        if "-----BEGIN" in file:  # it may be a private key
            raise CertificateError(key, "must be the path of a file, not what it holds") from None
        shown = file if file.isprintable() else ascii(file)
        raise CertificateError(key, f"cannot be read: {shown}: {reason}") from None


def _load(context: ssl.SSLContext, cert: str, key: str, place: str) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedError:
        raise CertificateError("key", "must hold a private key that is not encrypted") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(
                "key", f"must hold the private key of the certificate in {place}.cert"
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


def _facts(der: bytes) -> Facts:
    """What is told in a certificate, by RFC 5280 section 4.1. Raises ValueError and IndexError."""
    _, at, _ = _item(der, 0)  # Certificate
    _, at, last = _item(der, at)  # TBSCertificate
    tag, _, end = _item(der, at)
    if tag == _EXPLICIT:  # its version
        at = end
    for _ in range(2):  # serial number, signature
        _, _, at = _item(der, at)
    _, _, end = _item(der, at)
    issuer = der[at:end]
    _, at, validity_end = _item(der, end)
    _, _, until_at = _item(der, at)
    since, until = _time(der, at), _time(der, until_at)
    _, _, end = _item(der, validity_end)
    names: list[str] = []
    own = der[validity_end:end]
    while end < last:  # the key, unique ids, extensions
        tag, at, end = _item(der, end)
        if tag == _EXTENSIONS:
            names = _names(der, at)
    return Facts(since, until, tuple(dict.fromkeys(names)), own == issuer)


def _names(der: bytes, at: int) -> list[str]:
    """The host names in the list of extensions at `at`."""
    _, at, last = _item(der, at)
    found = []
    while at < last:
        _, inner, at = _item(der, at)  # Extension
        _, start, end = _item(der, inner)
        if der[start:end] != _ALT_NAMES:
            continue
        tag, inner, following = _item(der, end)
        if tag == _BOOLEAN:  # whether it is critical
            _, inner, _ = _item(der, following)
        _, inner, stop = _item(der, inner)  # GeneralNames
        while inner < stop:
            tag, start, inner = _item(der, inner)
            if tag == _DNS_NAME:
                found.append(der[start:inner].decode("ascii").lower())
    return found


def _time(der: bytes, at: int) -> float:
    """The unix time at `at`."""
    tag, start, end = _item(der, at)
    text = der[start:end].decode("ascii")
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
