"""The pair of a listener: what is said of one that cannot be used, and how it changes."""

import datetime as dt
import logging
import ssl
from pathlib import Path

import pytest

from proxy import tls
from proxy.config import Config, ConfigError, load
from proxy.parts import Parts
from tests.support.certificates import Authority

BACKENDS = "backends: [{url: 'http://127.0.0.1:8001'}]\n"
UTC = dt.UTC


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


def problem(folder: Path, cert: str, key: str | None) -> tuple[int | None, str, str]:
    """The only mistake of a file that names this pair: line, key, message."""
    file = folder / "proxy.yaml"
    file.write_text(BACKENDS + f"tls:\n  cert: {cert}\n" + (f"  key: {key}\n" if key else ""))
    with pytest.raises(ConfigError) as caught:
        load(file, need_backends=True)
    (found,) = caught.value.problems
    return found.line, found.key, found.message


def test_good_pair(authority: Authority) -> None:
    """A pair that can be used is no mistake."""
    pair = authority.issue("chat.test")
    file = authority.folder / "proxy.yaml"
    file.write_text(BACKENDS + f"tls: {{cert: {pair['cert']}, key: {pair['key']}}}")
    assert load(file).tls.cert == pair["cert"]


def test_missing_files(authority: Authority, tmp_path: Path) -> None:
    """A file that is not there is told at its own line."""
    pair = authority.issue("chat.test")
    reason = "cannot be read: No such file or directory"
    assert problem(tmp_path, "/nowhere/cert", pair["key"]) == (3, "tls.cert", reason)
    assert problem(tmp_path, pair["cert"], "/nowhere/key") == (4, "tls.key", reason)
    assert problem(tmp_path, pair["cert"], str(tmp_path))[2] == "cannot be read: Is a directory"


def test_wrong_contents(authority: Authority, tmp_path: Path) -> None:
    """What is no PEM, no pair or encrypted is told in words, and nothing of the key is shown."""
    pair, other = authority.issue("chat.test"), authority.issue("other.test")
    locked = authority.issue("locked.test", password=b"x")
    junk = tmp_path / "junk"
    junk.write_text("-----BEGIN CERTIFICATE-----\nsecret\n-----END CERTIFICATE-----\n")
    no_cert = (3, "tls.cert", "must hold a certificate in PEM form")
    assert problem(tmp_path, str(junk), pair["key"]) == no_cert
    assert problem(tmp_path, pair["key"], pair["key"]) == no_cert
    no_key = (4, "tls.key", "must hold a private key in PEM form")
    assert problem(tmp_path, pair["cert"], str(junk)) == no_key
    assert problem(tmp_path, pair["cert"], pair["cert"]) == no_key
    mismatch = "must hold the private key of the certificate in tls.cert"
    assert problem(tmp_path, pair["cert"], other["key"]) == (4, "tls.key", mismatch)
    encrypted = "must hold a private key that is not encrypted"
    assert problem(tmp_path, locked["cert"], locked["key"]) == (4, "tls.key", encrypted)


def test_half_a_pair(tmp_path: Path) -> None:
    """One of the two alone is a mistake."""
    message = "must name the file of the private key, because tls.cert is set"
    assert problem(tmp_path, "a.pem", None) == (2, "tls.key", message)
    assert problem(tmp_path, "", "a.pem") == (4, "tls.key", "must not be set without tls.cert")


@pytest.mark.parametrize("year", [2049, 2050, 2199])
def test_expiry(authority: Authority, year: int) -> None:
    """The end of a certificate is read in both forms of time that there are."""
    end = dt.datetime(year, 5, 6, 7, 8, 9, tzinfo=UTC)
    pem = Path(authority.issue("chat.test", expires=end)["cert"]).read_text()
    assert tls.expiry(pem) == end.timestamp()


def test_expired_certificate_is_told(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate that has expired is used, and the log says so."""
    pair = authority.issue("chat.test", expires=dt.datetime(2021, 1, 1, tzinfo=UTC))
    tls.Certificate(pair["cert"], pair["key"])
    assert "has expired" in caplog.text


def shown(context: ssl.SSLContext, authority: Authority) -> str:
    """The serial number of the certificate that a new handshake is shown."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client().wrap_bio(to_client, to_server, server_hostname="chat.test")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = (client.getpeercert() or {})["serialNumber"]
    assert isinstance(found, str)
    return found


def test_changed_pair(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """The same context shows the new certificate; a bad pair changes nothing, is counted and told once."""
    caplog.set_level(logging.INFO)
    pair = authority.issue("chat.test")
    certificate = tls.Certificate(pair["cert"], pair["key"])
    first = shown(certificate.context, authority)
    certificate.reload_if_changed()
    assert caplog.text == ""
    authority.issue("chat.test")
    certificate.reload_if_changed()
    second = shown(certificate.context, authority)
    assert second != first
    assert f"the certificate was read again: {pair['cert']}" in caplog.text
    Path(pair["key"]).write_text("not a key")
    certificate.reload_if_changed()
    certificate.reload_if_changed()
    assert certificate.failures == 1
    assert caplog.text.count("is not used, the old one stays: tls.key must hold a private key") == 1
    assert shown(certificate.context, authority) == second
    Path(pair["cert"]).unlink()
    certificate.reload_if_changed()
    assert certificate.failures == 2
    authority.issue("chat.test")
    certificate.reload_if_changed()
    assert shown(certificate.context, authority) not in {first, second}
    assert certificate.failures == 2


def test_pair_behind_links_is_seen_to_change(authority: Authority, tmp_path: Path) -> None:
    """Links that are turned to another folder, as Kubernetes does, count as a change; so does touching."""
    links = {kind: str(tmp_path / kind) for kind in ("cert", "key")}
    serials = []
    for name in ("old", "new"):
        pair = authority.issue("chat.test", file=name)
        for kind, link in links.items():
            fresh = Path(link + "~")
            fresh.symlink_to(pair[kind])
            fresh.replace(link)
        if name == "old":
            certificate = tls.Certificate(links["cert"], links["key"])
        certificate.reload_if_changed()
        serials.append(shown(certificate.context, authority))
    assert serials[0] != serials[1]


def test_metrics(authority: Authority) -> None:
    """The end of the certificate and the failures can be watched."""
    end = dt.datetime(2040, 1, 1, tzinfo=UTC)
    pair = authority.issue("chat.test", expires=end)
    parts = Parts(Config.model_validate({"tls": pair}))
    assert parts.plane.certificates is not None
    parts.plane.certificates.pairs[0].failures = 3
    samples = {family.sample: number for family in parts.collector.collect() for _, number in family.rows}
    assert samples["chainlit_proxy_certificate_expiry_seconds"] == end.timestamp()
    assert samples["chainlit_proxy_tls_certificate_expiry_seconds"] == end.timestamp()
    assert samples["chainlit_proxy_tls_reload_failures_total"] == 3
