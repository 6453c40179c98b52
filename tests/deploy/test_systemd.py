"""The units for systemd, read by systemd itself."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import Config
from tests.docs.pages import ROOT, found
from tests.docs.test_commands import parse

UNITS = ROOT / "deploy/systemd"
SERVICE = UNITS / "chainlit-proxy.service"
SOCKET = UNITS / "chainlit-proxy.socket"
PROGRAM = "/opt/chainlit-proxy/bin/chainlit-proxy"
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


def test_systemd_accepts_the_units(analyze: str, tmp_path: Path) -> None:
    """It knows every key and value, and finds what is started: here the program of this environment."""
    ours = Path(sys.executable).with_name("chainlit-proxy")
    for file in (SERVICE, SOCKET):
        text = file.read_text(encoding="utf-8")
        # The manual page is not installed for tests.
        text = text.replace(PROGRAM, str(ours)).replace("Documentation=man:chainlit-proxy(1)\n", "")
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


def test_systemd_accepts_the_unit_on_the_page(analyze: str, tmp_path: Path) -> None:
    """The unit for instances that the page shows is right too, with a program that is there."""
    (block,) = found("ini")
    text = block.text.replace("/opt/chat/bin/chainlit", sys.executable)
    file = tmp_path / "chat@8001.service"
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
    """Both commands are ours and read the same file."""
    service = unit(SERVICE)["Service"]
    for key, command in (("ExecStartPre", "check"), ("ExecStart", "serve")):
        program, *words = service[key].split()
        assert program == PROGRAM
        assert words[0] == command
        parse(words)
    assert service["ExecStart"].split()[2:] == service["ExecStartPre"].split()[2:]


def test_there_is_time_to_leave() -> None:
    """It is waited for longer than the proxy takes by default."""
    assert int(unit(SERVICE)["Service"]["TimeoutStopSec"]) > Config().timeouts.shutdown


def test_the_socket_is_where_the_proxy_listens() -> None:
    """Its address is the default of `listen`, so that the two meet without a word."""
    assert unit(SOCKET)["Socket"]["ListenStream"] in [str(address) for address in Config().listen]
    assert re.fullmatch(r"\d+", unit(SOCKET)["Socket"]["Backlog"])
