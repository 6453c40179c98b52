"""Where `serve` and `check` find their file."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.reading import again
from proxy.config import ConfigError

GOOD = "listen: 127.0.0.1:8123\nbackends: [http://127.0.0.1:8001]\n"


def _check(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["check", "--print", *arguments], input=text)


def test_a_file_is_an_argument_an_option_standard_input_or_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four read the same."""
    (tmp_path / "other.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    found = [
        _check("other.yaml"),
        _check("-c", "other.yaml"),
        _check("-", text=GOOD),
        _check("-c-", text=GOOD),
    ]
    os.rename("other.yaml", "proxy.yaml")  # noqa: PTH104
    found.append(_check())
    assert {result.exit_code for result in found} == {0}
    assert "listen: 127.0.0.1:8123" in found[0].stdout
    assert len({result.stdout for result in found}) == 1


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_file_that_is_not_there(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked for is named; two files are one too many."""
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ([], "no FILE is given, and this folder has no proxy.yaml"),
        (["a.yaml"], "a.yaml: cannot be read: No such file or directory"),
        (["a.yaml", "-c", "b.yaml"], "the file is given twice: as FILE and with -c"),
    ):
        result = CliRunner().invoke(main, [command, *arguments])
        assert result.exit_code == 2
        assert result.output.strip().removeprefix("Error: ").endswith(message)


def test_standard_input_cannot_be_read_again() -> None:
    """A reload is refused and leaves what runs."""
    with pytest.raises(ConfigError, match="cannot be read again"):
        again("-")
