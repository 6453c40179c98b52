"""The engine that the tests start themselves, where Debian's is installed."""

import os
import shutil

import pytest

from tests.deploy.engine import OwnEngine

pytestmark = [pytest.mark.system, pytest.mark.alone]


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("docker", "dockerd", "iptables-save"))),
    reason="needs root and Debian's packages docker.io and iptables",
)
def test_it_leaves_nothing_behind() -> None:
    """With a network, a volume and an image in it: no mount, link, rule, process or file is left."""
    own = OwnEngine()
    try:
        engine = own.start()
        engine.build("nothing", dockerfile="FROM scratch\nENV NOTHING=1\n")
        for kind in ("network", "volume"):
            engine(kind, "create", "--label", engine.label, f"nothing-{kind}")
        assert len(engine.left()) == 3
        assert own.leftovers()  # it is seen while it runs
        engine.clean()
        assert engine.left() == []
    finally:
        own.end()
    assert own.leftovers() == []
