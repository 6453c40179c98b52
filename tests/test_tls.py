"""The pair of a listener: what is said of one that cannot be used, and how it changes."""

import datetime as dt
import logging
import ssl
import time
from pathlib import Path

import pytest

from proxy import tls
from proxy.config import Config, ConfigError, load, loads
from proxy.parts import Parts, certificates_of
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
    for cert, key, place in (
        ("/nowhere/cert", pair["key"], (3, "tls.cert", "cannot be read: /nowhere/cert: No such file")),
        (pair["cert"], "/nowhere/key", (4, "tls.key", "cannot be read: /nowhere/key: No such file")),
        (pair["cert"], str(tmp_path), (4, "tls.key", f"cannot be read: {tmp_path}: Is a directory")),
    ):
        line, name, message = problem(tmp_path, cert, key)
        assert (line, name, message.removesuffix(" or directory")) == place


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


def test_beginnings_without_an_end() -> None:
    """Each byte of a file is looked at once, whatever it holds."""
    begun = time.process_time()
    with pytest.raises(tls.CertificateError, match="must hold a certificate in PEM form"):
        tls.read_certificate("-----BEGIN CERTIFICATE-----" * 20_000)
    assert time.process_time() - begun < 1


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


def test_a_key_that_may_be_read_later_is_read_then(authority: Authority) -> None:
    """A key gets the proxy's group a moment after it was renewed: that changes neither size nor contents."""
    pair = authority.issue("chat.test")
    certificate = tls.Certificate(pair["cert"], pair["key"])
    Path(pair["key"]).write_text("not a key")
    certificate.reload_if_changed()
    certificate.reload_if_changed()
    assert certificate.failures == 1
    Path(pair["key"]).chmod(0o640)
    certificate.reload_if_changed()
    assert certificate.failures == 2, "nobody has looked again"


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


def test_what_a_certificate_says(authority: Authority) -> None:
    """Its times and all its names of hosts are read, whatever stands between; who signed it is seen."""
    end = dt.datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)
    pair = authority.issue("Chat.test", expires=end, also=["*.chat.test", "other.test", "chat.test"])
    facts = tls.read_certificate(Path(pair["cert"]).read_text())
    assert facts.names == ("chat.test", "*.chat.test", "other.test")
    assert facts.until == end.timestamp()
    assert facts.since == dt.datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    assert not facts.signed_by_itself
    assert tls.read_certificate(Path(authority.issue("127.0.0.1")["cert"]).read_text()).names == ()
    own = tls.read_certificate(authority.file.read_text())
    assert (own.names, own.signed_by_itself) == ((), True)


def test_each_name_has_its_certificate(authority: Authority) -> None:
    """A client is given the first that bears the name it asks for, else the default; also after a change."""
    default = authority.issue("chat.test", also=["both.test"])
    second = authority.issue("other.test", also=["*.wild.test", "both.test"])
    pairs = [tls.Certificate(pair["cert"], pair["key"]) for pair in (default, second)]
    certificates = tls.Certificates(pairs)

    def given(name: str | None) -> tls.Certificate:
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        client = anybody.wrap_bio(to_client, to_server, server_hostname=name)
        server = certificates.context.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        shown_der = client.getpeercert(binary_form=True)
        assert shown_der is not None
        shown_pem = ssl.DER_cert_to_PEM_cert(shown_der)
        return next(pair for pair in pairs if tls.read_certificate(shown_pem).names == pair.facts.names)

    for name, place in {
        "chat.test": 0, "both.test": 0, "unknown.test": 0, None: 0, "a.b.wild.test": 0, "wild.test": 0,
        "other.test": 1, "OTHER.test": 1, "a.wild.test": 1,
    }.items():  # fmt: skip
        assert given(name) is pairs[place], name
    authority.issue("new.test", file="other.test")
    certificates.reload_if_changed()
    assert given("new.test") is pairs[1]
    assert given("other.test") is pairs[0]


def test_the_oldest_version(authority: Authority) -> None:
    """With 1.3 nothing older is offered by any of the certificates."""
    pair, other = authority.issue("chat.test"), authority.issue("other.test")
    config = Config.model_validate({"tls": {**pair, "certificates": [other], "min_version": "1.3"}})
    found = certificates_of(config)
    assert found is not None
    assert {each.context.minimum_version for each in found.pairs} == {ssl.TLSVersion.TLSv1_3}
    config = Config.model_validate({"tls": {"certificates": [other]}})
    found = certificates_of(config)
    assert found is not None
    assert found.context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_mistake_in_a_list_is_told_at_its_place(authority: Authority, tmp_path: Path) -> None:
    """The number of the entry and its key are named, also in what is wrong with the pair."""
    good, other = authority.issue("chat.test"), authority.issue("other.test")
    file = tmp_path / "proxy.yaml"
    file.write_text(
        f"{BACKENDS}tls:\n  certificates:\n    - {{cert: {good['cert']}, key: {good['key']}}}\n"
        f"    - cert: {other['cert']}\n      key: {good['key']}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(file, need_backends=True)
    (found,) = caught.value.problems
    assert (found.line, found.key) == (6, "tls.certificates[1].key")
    assert found.message == "must hold the private key of the certificate in tls.certificates[1].cert"


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who names domains and lacks the library is told what to install."""
    monkeypatch.setattr("proxy.config.checks.find_spec", lambda _: None)
    file = tmp_path / "proxy.yaml"
    file.write_text(f"{BACKENDS}tls: {{acme: {{domains: chat.test, folder: {tmp_path}}}}}")
    with pytest.raises(ConfigError) as caught:
        load(file, need_backends=True)
    (found,) = caught.value.problems
    assert (found.line, found.key) == (2, "tls.acme")
    assert found.message == "needs the package acme: pip install 'acme>=5,<6'"


def test_domains_bring_their_listeners() -> None:
    """Where nothing else is said, HTTPS is on 443 and what leads there on 80; the file and options win."""
    acme = "tls: {acme: {domains: Chat.Example.com.}}"
    config = loads(acme, defaults={"listen": "127.0.0.1:8000"}, acme={"tls.acme.folder": "/state"})
    assert list(map(str, config.listen)) == ["0.0.0.0:443", "http://0.0.0.0:80"]
    assert config.tls.acme.domains == ("chat.example.com",)
    assert config.tls.acme.folder == "/state"
    config = loads("", defaults={"listen": "127.0.0.1:8000"}, acme={"tls.acme.folder": "/state"})
    assert (list(map(str, config.listen)), config.tls.acme.folder) == (["127.0.0.1:8000"], None)
    config = loads(
        f"listen: ['a:1', 'http://a:2']\n{acme}", changes={"tls.acme.domains": ["b.test", "c.test"]}
    )
    assert list(map(str, config.listen)) == ["a:1", "http://a:2"]
    assert config.tls.acme.domains == ("b.test", "c.test")
    config = loads("", changes={"tls.acme.domains": ["b.test"], "listen": ["a:3", "http://a:4"]})
    assert list(map(str, config.listen)) == ["a:3", "http://a:4"]
