"""What `load` refuses, and how it says so."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.cli.loading import _checked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ftp://127.0.0.1"], "must be a URL such as http://127.0.0.1:8000"),
        (["http://a:b@127.0.0.1"], "without a password"),
        (["http://127.0.0.1/?a=b"], "without a password, query or fragment"),
        (["http://127.0.0.1/#"], "without a password, query or fragment"),
        (["http://[::1"], "without a password, query or fragment"),
        (["http://127.0.0.1:99999"], "Port out of range"),
        (["http://8.8.8.8"], "is at a public address, 8.8.8.8"),
        (["http://[2606:4700::1111]:8000"], "is at a public address, 2606:4700::1111"),
        (["http://127.0.0.1:1", "--target", "0"], "--target: must be a number greater than 0"),
        (["http://127.0.0.1:1", "--header", "x"], "--header: must be NAME:VALUE"),
        (["http://127.0.0.1:1", "--header", "x: a\nb"], "--header: must be NAME:VALUE"),
        (["http://127.0.0.1:1", "--header", "Cookie: a=b"], "--header: a cookie goes into --cookie"),
        (["http://127.0.0.1:1", "--cookie", "x"], "--cookie: must be NAME=VALUE"),
        (["http://127.0.0.1:1", "--cookie", "a=1; x"], "--cookie: must be NAME=VALUE"),
        (["http://127.0.0.1:1", "--cookie", "a b=1"], "--cookie: must be NAME=VALUE"),
        (["http://127.0.0.1:1", "--json", "/nowhere/a.json"], "--json /nowhere/a.json: cannot be written"),
        (["http://127.0.0.1:1", "--html", "/nowhere/a.html"], "--html /nowhere/a.html: cannot be written"),
        (["http://127.0.0.1:1", "--users", "0"], "Invalid value for '--users'"),
        (["http://127.0.0.1:1", "--say", "/nowhere"], "--say /nowhere: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], message: str) -> None:
    """With exit code 2, before anything is sent."""
    result = CliRunner().invoke(main, ["load", *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_a_password_is_not_repeated() -> None:
    """Whoever reads the log of a job does not get it."""
    result = CliRunner().invoke(main, ["load", "http://ada:hunter22@127.0.0.1"])
    assert (result.exit_code, "hunter22" in result.output) == (2, False)


def test_questions_are_needed(tmp_path: Path) -> None:
    """An empty file is none."""
    (tmp_path / "say.txt").write_text("\n \n")
    result = CliRunner().invoke(main, ["load", "http://127.0.0.1:1", "--say", str(tmp_path / "say.txt")])
    assert (result.exit_code, "holds no question" in result.output) == (2, True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/", "http://localhost:8000", "http://10.1.2.3/root"])
def test_whose_address_is_ones_own(url: str) -> None:
    """Addresses of this machine and of private networks; others once the user says so."""
    assert _checked(url, is_mine=False) == url.rstrip("/")
    assert _checked("http://8.8.8.8/", is_mine=True) == "http://8.8.8.8"


def test_nobody_there() -> None:
    """Where no session could be opened the command fails, and tells the kind of error."""
    arguments = ["http://127.0.0.1:1", "--users", "1", "--ramp", "0", "--for", "0.1", "--think", "0.1"]
    result = CliRunner().invoke(main, ["load", *arguments])
    assert result.exit_code == 1
    assert "connect: not reached" in result.output
    assert "sessions     0 opened" in result.output
    assert "nobody could open a session there" in result.output
