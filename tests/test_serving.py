"""What `run` and its check make of a configuration and of Chainlit's options."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.app import App
from proxy.cli import main
from proxy.cli.reading import root_path
from proxy.config import loads


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where the configuration is."""
    return tmp_path / "proxy.yaml"


def call(*args: str) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(main, args)


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("store: 'redis://'", "store", "must be sqlite, sqlite:///FILE, redis://HOST:PORT"),
        ("store: 'mysql://db/chat'", "store", "must be sqlite, sqlite:///FILE, redis://HOST:PORT"),
        (
            "store: 'sqlite://{file}/s.db'",
            "store",
            "must be a file in a folder that can be written: {file} is",
        ),
        ("files: '{file}/files'", "files", "must be a folder that can be written: {file} is not a folder"),
    ],
)
def test_a_store_that_cannot_be_opened_is_a_mistake(
    config: Path, tmp_path: Path, text: str, key: str, message: str
) -> None:
    """`run` and its check name the line and what is allowed; `serve` has no use for a store."""
    file = tmp_path / "file"
    file.touch()
    text, message = text.format(file=file), message.format(file=file)
    config.write_text(f"log: {{access: false}}\nsessions:\n  {text}\n")
    for args in (["check", "-c", str(config), "--for", "run"], ["run", "app.py", "-c", str(config)]):
        result = call(*args)
        assert result.exit_code == 2
        assert f"{config.name}:3: sessions.{key}: {message}" in result.stderr
    config.write_text(f"backends: [{{url: http://127.0.0.1:1}}]\nsessions:\n  {text}\n")
    assert call("check", "-c", str(config)).exit_code == (0 if str(file) in text else 2)


def test_a_folder_for_the_store_may_be_missing(config: Path, tmp_path: Path) -> None:
    """What can be made is no mistake, and looking makes nothing."""
    config.write_text(f"sessions: {{store: 'sqlite://{tmp_path}/new/er/s.db'}}\n")
    assert call("check", "-c", str(config), "--for", "run").exit_code == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "environ", "root"),
    [
        (["--root-path", "/chat"], {}, "/chat"),
        (["-d", "--root-path=/chat/"], {}, "/chat"),
        ([], {"CHAINLIT_ROOT_PATH": "/chat"}, "/chat"),
        (["--root-path", "/a"], {"CHAINLIT_ROOT_PATH": "/b"}, "/a"),
        (["--root-path"], {}, ""),
        (["--root-path", "/"], {}, ""),
        ([], {}, ""),
    ],
)
def test_the_root_path_is_that_of_chainlit(options: list[str], environ: dict[str, str], root: str) -> None:
    """What follows `--` wins over the environment, as it does in Chainlit."""
    assert root_path(options, environ) == root


@pytest.mark.parametrize(("roots", "end"), [("[]", ""), ("/chat", "/chat/"), ("/", "/")])
def test_the_address_to_open_is_below_the_root_path(roots: str, end: str) -> None:
    """What `run` tells to open is where Chainlit answers."""
    listen = "127.0.0.1:0"
    app = App(loads(f"listen: {listen}\nadmin: {{listen: {listen}}}\naffinity: {{roots: {roots}}}"))
    app.bind()
    try:
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+{end}", app._public_address())
    finally:
        app.ports.close()
