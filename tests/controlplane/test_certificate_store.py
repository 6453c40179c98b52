"""The folder of certificates: what is in it, who takes turns, and what never leads out of it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy import tls
from proxy.config.tls_settings import AcmeSettings
from proxy.controlplane.certificate_store import BusyError, CertificateStore, default_folder


def test_paths_stay_in_the_folder(tmp_path: Path) -> None:
    """A token that is none is answered by nothing, whatever it leads to, and is not written either."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    store = CertificateStore(
        AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path / "s")})
    )
    store.prepare()
    for token in ("../../secret", "..", ".", "", "/etc/passwd", "a/b", "%2e%2e", "a\x00", "a" * 129, "ä"):
        assert store.answer(token) is None
        with pytest.raises(ValueError), store.answering({token: "y"}):
            pass
    assert secret.read_text() == "x"
    with store.answering({"good-Token_1": "y"}):
        assert store.answer("good-Token_1") == b"y"
    assert store.answer("good-Token_1") is None


def test_one_turn_at_a_time(tmp_path: Path) -> None:
    """Who has the turn has it until he gives it back; nobody waits for it."""
    settings = AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path)})
    one, two = CertificateStore(settings), CertificateStore(settings)
    one.prepare()
    with one.turn(), pytest.raises(BusyError), two.turn():
        pass
    with two.turn():
        pass


def test_who_writes_at_once(tmp_path: Path) -> None:
    """Processes of several containers may have the same number: none takes what another is writing."""
    settings = AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path)})
    store = CertificateStore(settings)
    store.prepare()
    keys = [b"%d" % number * 5000 for number in range(8)]
    with ThreadPoolExecutor(len(keys)) as threads:
        for written in [threads.submit(store.keep_account, key, "https://a.test/1") for key in keys]:
            written.result()
    account = store.account()
    assert account is not None
    assert account[0] in keys
    assert not list(store.folder.glob(".*"))


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """Half a file may hold a key: it is removed a day later. What is being written, or whole, stays."""
    store = CertificateStore(AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path)}))
    store.prepare()
    left, written = store.folder / ".a.pem.1", store.folder / ".a.pem.2"
    for path in (left, written):
        path.write_text("half a key")
    for path in (left, store.pair):
        os.utime(path, (1, 1))
    with store.answering({}):
        assert (left.exists(), written.exists(), store.pair.exists()) == (False, True, True)


def test_long_names(tmp_path: Path) -> None:
    """The longest names that a host can have are none that a file could not have, and tell sets apart."""
    host = ".".join(["a" * 60] * 4)
    folder, directory = str(tmp_path), f"https://{host}/directory"
    found = set()
    for end in "bc":
        names = [f"{host}.{end}a"]
        settings = AcmeSettings.model_validate({"domains": names, "folder": folder, "directory": directory})
        store = CertificateStore(settings)
        store.prepare()
        facts = store.facts()
        assert facts is not None
        assert facts.names == tuple(names)
        found.add(store.pair)
    assert len(found) == 2


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    """Every folder that is made is for one user, those above included; those that are there stay."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "state" / "acme"
    store = CertificateStore(AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(folder)}))
    store.prepare()
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in modes}
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_half_a_file_is_replaced(tmp_path: Path) -> None:
    """What cannot be used as a pair is replaced by what stands in; a good one is not touched."""
    store = CertificateStore(AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path)}))
    store.prepare()
    text = store.pair.read_text()
    store.prepare()
    assert store.pair.read_text() == text
    store.pair.write_text(text[:100])
    store.prepare()
    facts = store.facts()
    assert facts is not None
    assert facts.signed_by_itself
    with pytest.raises(tls.CertificateError):
        store.use(b"no key", "no certificate")
    assert store.facts() == facts


def test_what_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    """It may be a good certificate, for which the authority would have to be asked again."""
    store = CertificateStore(AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path)}))
    store.prepare()
    store.pair.unlink()
    store.pair.symlink_to(store.pair.name)
    with pytest.raises(tls.CertificateError, match="Too many levels of symbolic links"):
        store.prepare()
    assert store.pair.is_symlink()


def test_the_folder(tmp_path: Path) -> None:
    """That of the service, else the user's; one that cannot be had is told with what to do."""
    assert default_folder({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}) == Path("/var/lib/a/acme")
    assert default_folder({}).parts[-2:] == ("chainlit-proxy", "acme")
    (tmp_path / "file").write_text("")
    wrong = AcmeSettings.model_validate({"domains": ["a.test"], "folder": str(tmp_path / "file")})
    with pytest.raises(tls.CertificateError, match=r"tls\.acme\.folder: .*; name one that can be written"):
        CertificateStore(wrong).prepare()
