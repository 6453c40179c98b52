"""Certificates for the tests, made when they are needed: no key is ever kept."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

YEAR = dt.timedelta(days=365)


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        now = dt.datetime.now(dt.UTC)
        builder = _builder(self._name, self._name, self._key.public_key(), now + YEAR)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        file: str = "",
        expires: dt.datetime | None = None,
        password: bytes = b"",
        also: Iterable[str] = (),
    ) -> dict[str, str]:
        """A new pair for a host name or an address, as `tls` has it; the files are called `file`.

        It bears the names of `also` as well.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        until = expires or dt.datetime.now(dt.UTC) + YEAR
        builder = _builder(_named(name), self._name, key.public_key(), until)
        try:
            known: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            known = x509.DNSName(name)
        names = [known, *map(x509.DNSName, also)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=bool(also))
        certificate = builder.sign(self._key, hashes.SHA256())
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password)
        pair = {
            "cert": str(self.folder / f"{file or name}.crt"),
            "key": str(self.folder / f"{file or name}.key"),
        }
        Path(pair["cert"]).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
        Path(pair["key"]).write_bytes(key.private_bytes(encoding, form, encryption))
        return pair

    def client(self) -> ssl.SSLContext:
        """What trusts this authority and no other."""
        return ssl.create_default_context(cafile=str(self.file))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(until)
    )
