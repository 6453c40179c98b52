"""The folder in which the account, the keys and the certificate of `tls.acme` are kept.

Rules: folders that are made here are for the proxy's user only, and so is every file. A file is written
beside its place and moved there whole, so nobody reads half of one. Key and certificate are one file: a pair
that does not fit cannot be seen. A name from outside is never a part of a path unless it has the form that it
must have. Proxies that share the folder take turns by a lock, which ends with its process.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from urllib.parse import urlsplit

import platformdirs

from proxy import tls
from proxy.config.tls_settings import AcmeSettings

# RFC 8555 section 8.1: base64url; those of authorities have 43 characters.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.-]")
_SHOWN = 64  # characters of a host's name in that of a file, which has at most 255
_STAND_IN_DAYS = 30  # it is replaced within minutes, or alerts tell of tries that failed
_STALE = 86400.0  # seconds after which an answer, or half a file, is what a killed process left


class BusyError(Exception):
    """Another proxy has its turn."""


class OrderError(Exception):
    """No certificate was issued; the text says why, in one line."""


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the folder is unless the configuration names one."""
    if service := environ.get("STATE_DIRECTORY"):  # of systemd, which lists all of StateDirectory=
        return Path(service.partition(":")[0]) / "acme"
    return platformdirs.user_state_path("chainlit-proxy", appauthor=False) / "acme"


class CertificateStore:
    """The part of the folder for one authority and one set of domains; made for a configuration."""

    def __init__(self, settings: AcmeSettings) -> None:
        folder = Path(settings.folder) if settings.folder else default_folder()
        url = settings.directory
        host = _NOT_IN_NAMES.sub("_", urlsplit(url).hostname or "")[:_SHOWN]
        self.folder = folder / f"{host}-{_mark(url)}"
        self.domains = settings.domains
        domain = self.domains[0][:_SHOWN]
        self.pair = self.folder / f"{domain}-{_mark(' '.join(sorted(self.domains)))}.pem"
        self._tokens = folder / "challenges"

    def prepare(self) -> None:
        """Have a pair in its place: one that stands in where there is none that can be used.

        Raises CertificateError where the folder cannot be used.
        """
        try:
            for folder in (*reversed(self._tokens.parents), self.folder, self._tokens):
                folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                self.pair.read_bytes()  # what cannot be read may be good: it is not replaced
            facts = self.facts()
            if facts is None or (facts.signed_by_itself and not set(self.domains) <= set(facts.names)):
                _write(self.pair, _stand_in(self.domains))
        except OSError as error:
            where = error.filename or self.folder
            raise tls.CertificateError(
                "acme.folder", f"tls.acme.folder: {where}: {error.strerror}; name one that can be written"
            ) from None

    def facts(self) -> tls.Facts | None:
        """What the certificate says that is there; None if there is no pair that can be used."""
        try:
            tls.server_context(str(self.pair), str(self.pair))
            return tls.read_certificate(self.pair.read_text("latin-1"))
        except (OSError, tls.CertificateError):
            return None

    def use(self, key: bytes, chain: str) -> None:
        """A new pair. Raises CertificateError if it is none, and OSError; then the old one stays."""
        trial = self.pair.with_suffix(".new")
        _write(trial, chain.encode() + key)
        try:
            tls.server_context(str(trial), str(trial))
            trial.replace(self.pair)
        finally:
            trial.unlink(missing_ok=True)

    # The account

    def account(self) -> tuple[bytes, str] | None:
        """The key of the account in PEM form, and its URL."""
        with suppress(OSError, UnicodeError):
            key, url = (self.folder / "account.pem").read_bytes(), (self.folder / "account.url").read_text()
            return (key, url.strip()) if url.strip() else None
        return None

    def keep_account(self, key: bytes, url: str) -> None:
        """Another account. Raises OSError."""
        _write(self.folder / "account.url", b"")  # no key is ever beside the URL of another
        _write(self.folder / "account.pem", key)
        _write(self.folder / "account.url", f"{url}\n".encode())

    # Turns

    @contextmanager
    def turn(self) -> Iterator[None]:
        """For one process at a time, and one thread of it. Raises BusyError."""
        with os.fdopen(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError from None
            yield

    # What the authority asks for

    def answer(self, token: str) -> bytes | None:
        """What is to be answered to a question of the authority; None: nothing is known of it."""
        if _TOKEN.fullmatch(token) is None:
            return None
        try:
            return (self._tokens / token).read_bytes()
        except OSError:
            return None

    @contextmanager
    def answering(self, answers: Mapping[str, str]) -> Iterator[None]:
        """Every proxy that has the folder answers these tokens meanwhile. Raises OSError and ValueError."""
        self._remove_stale()
        try:
            for token, text in answers.items():
                if _TOKEN.fullmatch(token) is None:
                    raise ValueError("a token is not what it has to be")
                _write(self._tokens / token, text.encode())
            yield
        finally:
            for token in answers:
                if _TOKEN.fullmatch(token) is not None:
                    (self._tokens / token).unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        for path in (*self._tokens.iterdir(), *self.folder.glob(".*")):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - _STALE:
                    path.unlink()

    def __repr__(self) -> str:
        return f"<CertificateStore {self.pair}>"


def _mark(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Put a file in its place, readable by nobody else. Raises OSError."""
    # By a name of its own: in containers that share the folder two processes may have one number.
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def new_key() -> bytes:
    """A new private key of P-256, in PEM form."""
    from cryptography.hazmat.primitives import serialization as form  # noqa: PLC0415 - needs an extra
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )


def _stand_in(domains: tuple[str, ...]) -> bytes:
    """A pair that nobody trusts, signed by itself."""
    import datetime as dt  # noqa: PLC0415 - as the others here

    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    pem = new_key()
    key = serialization.load_pem_private_key(pem, None)
    assert hasattr(key, "sign")
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "chainlit-proxy until its certificate is there")]
    )
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_STAND_IN_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in domains]), critical=False)
    )
    return pem + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]
