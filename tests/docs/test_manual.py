"""The manual page and the completion scripts: made from the commands, and understood by their readers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from proxy.cli import main
from proxy.cli.manual import manual
from tests.docs.pages import ROOT

PAGE = ROOT / "deploy/man/chainlit-proxy.1"
BASH = ROOT / "deploy/completion/chainlit-proxy.bash"
OPTIONS = [
    (name, option)
    for name, command in main.all().items()
    for option in command.params
    if isinstance(option, click.Option)
]


def test_the_page_is_up_to_date() -> None:
    """Run `python -m proxy.cli.manual > deploy/man/chainlit-proxy.1` after a change of the commands."""
    assert manual() == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=lambda value: str(getattr(value, "name", value)))
def test_every_option_says_what_it_does(name: str, option: click.Option) -> None:
    """Each has words, which `--help` and the manual page show."""
    assert option.help, name


def test_groff_has_nothing_to_say() -> None:
    """The page is right for man(7): no warning of any kind, and every command stands in what is shown."""
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("no groff on this machine")
    done = subprocess.run(
        [groff, "-man", "-Tascii", "-P-cbou", "-ww", str(PAGE)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert [name for name in main.all() if name not in done.stdout] == []


def complete(script: str, words: str) -> list[str]:
    """What bash offers behind these words, after a script was read."""
    asking = f"""
{script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_chainlit_proxy_completion chainlit-proxy
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", asking],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


def test_bash_completes_commands_and_options() -> None:
    """The script that is installed, and the line for `~/.bashrc` on the pages, complete what is begun."""
    line = 'eval "$(chainlit-proxy completion bash)"'
    assert complete(line, "chainlit-proxy ma") == ["maintenance"]
    assert complete(BASH.read_text(encoding="utf-8"), "chainlit-proxy drain --t") == ["--timeout", "--token"]
