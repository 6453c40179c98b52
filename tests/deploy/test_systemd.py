"""The units for systemd, read by systemd itself."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import Config
from proxy.controlplane.certificate_store import default_folder
from tests.docs.pages import ROOT
from tests.docs.test_commands import parse

UNITS = ROOT / "deploy/systemd"
INSTANCES = [UNITS / "chat@.service", UNITS / "chat.service"]
SERVICE = UNITS / "chainlit-proxy.service"
SOCKET = UNITS / "chainlit-proxy.socket"
PROGRAM = "/opt/chainlit-proxy/bin/chainlit-proxy"
KNOWS_STEPS = 254  # the first systemd that does; older ones say that they ignore them
MOST_EXPOSED = 20  # of 100, as systemd-analyze counts; one without any of the settings has 96


class Unit(configparser.RawConfigParser):
    """A unit file; of a key that stands twice the last one counts."""

    def optionxform(self, optionstr: str) -> str:
        """Names have capitals."""
        return optionstr


def unit(file: Path) -> Unit:
    """A unit that was read."""
    parser = Unit(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.read(file)
    return parser


@pytest.fixture
def analyze() -> str:
    """The program that reads units."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd on this machine")
    return program


def version(analyze: str) -> int:
    """Of systemd."""
    told = subprocess.run([analyze, "--version"], capture_output=True, text=True, timeout=60, check=True)
    return int(told.stdout.split()[1])


def test_systemd_accepts_the_units(analyze: str, tmp_path: Path) -> None:
    """It knows every key and value, and finds what is started: here the program of this environment."""
    ours = Path(sys.executable).with_name("chainlit-proxy")
    for file in (SERVICE, SOCKET):
        text = file.read_text(encoding="utf-8")
        # The manual page is not installed for tests.
        text = text.replace(PROGRAM, str(ours)).replace("Documentation=man:chainlit-proxy(1)\n", "")
        if version(analyze) < KNOWS_STEPS:
            text = re.sub(r"^(RestartSteps|RestartMaxDelaySec)=.*\n", "", text, flags=re.MULTILINE)
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    files = [str(tmp_path / file.name) for file in (SERVICE, SOCKET)]
    done = subprocess.run(
        [analyze, "verify", "--recursive-errors=no", *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours_told = [line for line in done.stderr.splitlines() if "chainlit" in line]
    assert (done.returncode, ours_told) == (0, []), done.stderr


@pytest.mark.parametrize("instance", INSTANCES, ids=lambda file: str(file.name))
def test_systemd_accepts_the_units_of_instances(analyze: str, tmp_path: Path, instance: Path) -> None:
    """The units for instances are right too, with a program that is there."""
    text = (
        instance.read_text(encoding="utf-8")
        .replace("/opt/chat/bin/chainlit-proxy", sys.executable)
        .replace("/srv/chat", str(tmp_path))
    )
    file = tmp_path / instance.name.replace("@", "@8001")
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", "--recursive-errors=no", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if "chat" in line]
    assert (done.returncode, told) == (0, []), done.stderr


def test_the_units_are_started_with_the_machine(analyze: str, tmp_path: Path) -> None:
    """All of them can be enabled, an instance by its number; nothing else is to be done for the next boot."""
    folder = tmp_path / "etc/systemd/system"
    folder.mkdir(parents=True)
    for file in UNITS.iterdir():
        shutil.copy(file, folder)
    names = ["chainlit-proxy.socket", "chainlit-proxy.service", "chat.service", "chat@8001.service"]
    program = Path(analyze).with_name("systemctl")
    command = [str(program), f"--root={tmp_path}", "enable", *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    wanted = {path.name for path in folder.glob("*.wants/*")}
    assert wanted == set(names), done.stderr


@pytest.mark.parametrize("file", INSTANCES, ids=lambda file: str(file.name))
def test_the_units_run_the_app_as_it_is(file: Path) -> None:
    """Not as root, from the app's own folder, by a command of ours, and at each start of the machine."""
    instance = unit(file)
    service = instance["Service"]
    program, *words = service["ExecStart"].split()
    assert program == "/opt/chat/bin/chainlit-proxy"
    parse(words)
    assert service["DynamicUser"] == "yes"
    assert "CHAINLIT_APP_ROOT" not in file.read_text(encoding="utf-8")
    assert instance["Install"]["WantedBy"] == "multi-user.target"
    assert instance["Unit"]["StartLimitIntervalSec"] == "0"
    page = (ROOT / "docs/deployment/systemd.md").read_text(encoding="utf-8")
    assert str(file.relative_to(ROOT)) in page
    assert service["WorkingDirectory"] in page
    assert service["EnvironmentFile"].startswith("-"), "without it the journal shows what is missing"
    assert service["EnvironmentFile"].removeprefix("-") in page


@pytest.mark.parametrize("file", [SERVICE, INSTANCES[1]], ids=lambda file: str(file.name))
def test_the_proxy_says_how_it_is(file: Path) -> None:
    """Ready, and alive; a reload checks the file first and is asked for by a command of ours alone."""
    text = file.read_text(encoding="utf-8")
    service = unit(file)["Service"]
    assert service["Type"] == "notify"
    assert 2 < int(service["WatchdogSec"]) < Config().health.evict_after
    program, *started = service["ExecStart"].split()
    checking, reloading = (line.split() for line in re.findall(r"^ExecReload=(.*)$", text, re.MULTILINE))
    assert checking[:3] == [program, "check", "--quiet"]
    assert checking[-2:] == ["-c", started[started.index("-c") + 1]]
    parse(checking[1:])
    assert reloading == [program, "reload", "--pid", "$MAINPID"]
    parse([*reloading[1:-1], "4711"])
    assert "/bin/kill" not in text


def test_the_state_is_for_the_proxy_alone() -> None:
    """The keys of certificates that it gets itself are there."""
    service = unit(SERVICE)["Service"]
    assert (service["StateDirectory"], service["StateDirectoryMode"]) == ("chainlit-proxy", "0700")


def test_the_service_may_do_little(analyze: str) -> None:
    """Its exposure, as systemd judges it from the unit, is low."""
    done = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(SERVICE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_starts_the_proxy() -> None:
    """The command is ours, and reads the file that the page has checked before a restart."""
    program, *words = unit(SERVICE)["Service"]["ExecStart"].split()
    assert (program, words[0]) == (PROGRAM, "serve")
    parse(words)
    page = (ROOT / "docs/deployment/systemd.md").read_text(encoding="utf-8")
    assert " ".join([PROGRAM, "check", *words[1:]]) in page


def test_the_port_stays_open() -> None:
    """Whatever ends the proxy, however often: it is started again, and neither unit is ever given up."""
    service, socket = unit(SERVICE), unit(SOCKET)
    assert service["Unit"]["StartLimitIntervalSec"] == "0"
    assert socket["Socket"]["TriggerLimitIntervalSec"] == "0"
    assert service["Service"]["Restart"] == "always"
    assert 0 < int(service["Service"]["RestartSec"]) <= int(service["Service"]["RestartMaxDelaySec"])
    stopping = {"RestartPreventExitStatus", "ExecStartPre", "ExecCondition", "SuccessExitStatus"}
    assert not stopping & service["Service"].keys()


def test_certificates_outlive_restarts() -> None:
    """The service's own folder is where tls.acme keeps them; the rest of the file system is read-only."""
    service = unit(SERVICE)["Service"]
    name = service["StateDirectory"]
    folder = default_folder({"STATE_DIRECTORY": f"/var/lib/{name}"})
    assert folder == Path("/var/lib", name, "acme")
    assert (service["StateDirectoryMode"], service["ProtectSystem"]) == ("0700", "strict")
    assert str(folder) in (ROOT / "docs/deployment/systemd.md").read_text(encoding="utf-8")


def test_there_is_time_to_leave() -> None:
    """It is waited for longer than the proxy takes by default."""
    assert int(unit(SERVICE)["Service"]["TimeoutStopSec"]) > Config().timeouts.shutdown


def test_the_socket_is_where_the_proxy_listens() -> None:
    """Its address is the default of `listen`, so that the two meet without a word."""
    assert unit(SOCKET)["Socket"]["ListenStream"] in [str(address) for address in Config().listen]
    assert re.fullmatch(r"\d+", unit(SOCKET)["Socket"]["Backlog"])
