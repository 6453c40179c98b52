"""The engines that the tests start themselves, where Debian's are installed."""

import os
import shutil
from pathlib import Path

import pytest

from tests.deploy import own_engine
from tests.deploy.own_engine import OWN, Docker, OwnEngine, Podman, running

pytestmark = [pytest.mark.system, pytest.mark.alone]
BY_NAME = {name: shutil.which(name) for name in {*Docker.PROGRAMS, *Podman.PROGRAMS, "iptables-save"}}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def lacking(kind: type[OwnEngine]) -> list[str]:
    """The programs of an engine that are not here."""
    return [name for name in (*kind.PROGRAMS, "iptables-save") if BY_NAME[name] is None]


@needs_root
@pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in OWN.items()])
def test_it_leaves_nothing_behind(kind: type[OwnEngine]) -> None:
    """With a network, a volume and an image in it: no mount, link, rule, process or file is left."""
    if missing := lacking(kind):
        pytest.skip(f"not here: {' '.join(missing)}")
    own = kind()
    try:
        engine = own.start()
        engine.build("nothing", dockerfile="FROM scratch\nENV NOTHING=1\n")
        for thing in ("network", "volume"):
            engine(thing, "create", "--label", engine.label, f"nothing-{thing}")
        assert len(engine.left()) == 3
        assert own.leftovers()  # it is seen while it runs
        engine.clean()
        assert engine.left() == []
    finally:
        own.end()
    assert own.leftovers() == []


@needs_root
def test_podman_is_used_where_docker_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A daemon that ends at once is told with its words, and the other one answers."""
    if missing := lacking(Podman):
        pytest.skip(f"not here: {' '.join(missing)}")
    daemon = tmp_path / "dockerd"
    daemon.write_text("#!/bin/sh\necho no cgroup for dockerd >&2\nexit 1\n")
    daemon.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(own_engine, "the_machines", lambda: None)
    monkeypatch.delenv("ENGINE", raising=False)
    with running() as engine:
        assert engine.is_podman
    monkeypatch.setattr(own_engine, "OWN", {"docker": Docker})
    with pytest.raises(FileNotFoundError, match="docker: does not start: no cgroup for dockerd"), running():
        raise AssertionError


def test_an_engine_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in ENGINE is told, with what there is."""
    monkeypatch.setenv("ENGINE", "padman")
    with pytest.raises(FileNotFoundError, match=r"ENGINE=padman: .* docker and podman"), running():
        raise AssertionError
