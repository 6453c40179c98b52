"""The units for instances under a real systemd, by the very commands of the page; by `make images`."""

import os
from collections.abc import Iterator
from functools import partial

import pytest

from tests.deploy import stand_ins
from tests.deploy.engine import Engine
from tests.deploy.test_systemd_booted import BOOT
from tests.docs.pages import ROOT, found
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.skipif("IMAGES" not in os.environ, reason="builds images, see `make images`"),
    pytest.mark.system,
    pytest.mark.timeout(1800),
]

PAGE = ROOT / "docs/deployment/systemd.md"
PORTS = (8001, 8002)
# Loopback of its own: the page's ports are free there.
ALONE = [word if word != "host" else "none" for word in BOOT]
STEPS = stand_ins.OF_SYSTEMD + "RUN ln -s chainlit-proxy /opt/chat && mkdir /srv/chat\n"


class Instances:
    """A machine with systemd and the app, on which nothing of ours was started yet; owned by the fixture."""

    def __init__(self, engine: Engine, image: str) -> None:
        self._engine = engine
        volumes = ("--volume", f"{ROOT}/deploy:/deploy:ro", "--volume", f"{ROOT}/examples/chat:/srv/chat:ro")
        self.id = engine("run", "--detach", "--label", engine.label, *ALONE, *volumes, image)
        self.wait_up()

    def wait_up(self) -> None:
        """Wait until the machine has started."""
        told = "systemctl is-system-running || true"
        wait_until(lambda: self.sh(told) in {"running", "degraded"}, 60, lambda: self.sh(told))

    def sh(self, line: str) -> str:
        """What a line of the shell prints, at the root."""
        return self._engine("exec", "--workdir", "/", self.id, "sh", "-c", line)

    def wait_serving(self) -> None:
        """Wait until every instance answers."""
        for port in PORTS:
            wait_until(partial(self._answers, port), 90, self.journal)

    def _answers(self, port: int) -> bool:
        ask = f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{port}/health || true"
        return self.sh(ask) == "200"

    def journal(self) -> str:
        """What the instances said."""
        return self.sh("journalctl --no-pager --output=cat --unit='chat@*' | tail -40")

    def reboot(self) -> None:
        """As when the machine is started again."""
        self._engine("restart", "--time", "60", self.id)
        self.wait_up()

    def end(self) -> None:
        """Remove the machine."""
        print(self.journal())
        self._engine("rm", "--force", self.id)


@pytest.fixture
def instances(engine: Engine, chat_image: str) -> Iterator[Instances]:
    """One machine."""
    steps = STEPS.format(proxy=chat_image, base=stand_ins.python(engine))
    machine = Instances(engine, engine.build("instances", dockerfile=steps))
    yield machine
    machine.end()


def test_the_page_starts_them(instances: Instances) -> None:
    """Its commands as they stand, twice; not as root, sharing their sessions, and again after a reboot."""
    (steps,) = (
        one.text for one in found("sh") if one.page == PAGE and "chat@8001.service chat@8002" in one.text
    )
    for _ in range(2):
        instances.sh(steps)
    instances.wait_serving()
    for port in PORTS:
        pid = instances.sh(f"systemctl show --value --property=MainPID chat@{port}.service")
        assert instances.sh(f"stat -c %u /proc/{pid}") != "0"
    private = instances.sh("stat -c '%a %u' /etc/chat/environment /var/lib/chat/sessions.db").split()
    assert (private[:3:2], private[1] == "0" != private[3]) == (["600", "600"], True)
    instances.reboot()
    instances.wait_serving()
    began = instances.sh("systemctl show --value --property=NRestarts chat@8001.service")
    instances.sh("systemctl stop chat@8001.service chat@8002.service")
    assert (began, instances.sh("systemctl is-failed chat@8001.service || true")) == ("0", "inactive")
