"""Every command on the pages can be typed as it stands there."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from functools import cache

import click
import pytest
import uvicorn

import hatch_build
from proxy.cli import main
from tests.docs.not_run import NOT_RUN
from tests.docs.pages import ROOT, Piece, found

CHECKOUT = "~/chainlit-sticky-proxy"  # where the pages have this repository
# Options of other programs that the text of the pages speaks of.
FOREIGN_OPTIONS = {
    "chainlit run": {"--host", "--port", "--ssl-cert", "--root-path", "--watch", "--headless", "--debug"},
    "benchmarks": {"--compiled", "--write"},
    "docker": {"--stop-timeout", "--scale", "--build-arg", "--signal"},
    "gunicorn": {"--keep-alive"},
    "helm": {"--force-conflicts", "--reset-then-reuse-values", "--reuse-values"},
    "kubectl": {"--selector"},
    "py-spy": {"--native"},
    "uvicorn": {"--workers", "--ws-ping-timeout"},
}


def lines(piece: Piece) -> Iterator[tuple[Piece, str]]:
    """The commands of a block, each with its own place; a backslash at its end joins a line with the next."""
    begun, begun_at = "", 0
    for number, line in enumerate(piece.text.splitlines(), piece.line):
        begun, begun_at = (f"{begun} {line.strip()}", begun_at) if begun else (line, number)
        if begun.endswith("\\"):
            begun = begun.removesuffix("\\").rstrip()
            continue
        if begun.strip() and not begun.startswith("#"):
            yield piece._replace(line=begun_at), begun
        begun = ""


def commands() -> list[tuple[Piece, str]]:
    """All lines of shell blocks, and what stands in the text as a command of ours or of make."""
    typed = [pair for piece in found("sh") for pair in lines(piece)]
    told = [
        (piece, piece.text)
        for piece in found("span")
        if re.match(r"(chainlit-proxy \w+|make|pip|python -m) \S", piece.text)
    ]
    return typed + told


def parse(words: list[str]) -> None:
    """Parse a command line of ours as click would; raises click.UsageError."""
    arguments = ["1" if word == "N" else word for word in words]
    with main.make_context("chainlit-proxy", list(arguments), help_option_names=[]) as context:
        name, command, rest = main.resolve_command(context, arguments)
        assert command is not None
        command.make_context(name, rest, parent=context).close()


@pytest.mark.parametrize(("piece", "line"), commands(), ids=str)
def test_a_command_is_right(piece: Piece, line: str) -> None:
    """Programs, subcommands, options, make targets, modules and extras exist; click accepts what is ours."""
    words = shlex.split(line)
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    match words:
        case ["chainlit-proxy", *rest]:
            parse(rest[: rest.index(">")] if ">" in rest else rest)
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            # What is a target there, or a variable that is given.
            lines_of = {word: rf"^{word}:" for word in targets if "=" not in word}
            lines_of |= {word: rf"\b{word.partition('=')[0]}\b" for word in targets if "=" in word}
            assert all(re.search(pattern, makefile, re.MULTILINE) for pattern in lines_of.values())
        case ["python" | "python3", "-m", module, *_]:
            assert importlib.util.find_spec(module)
        case ["pip", "install", place]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            extras = project["optional-dependencies"]
            known = {".", CHECKOUT, "chainlit", *(f".[{extra}]" for extra in extras)}
            assert place in known.union(*extras.values())
        case [".", script]:
            assert script == ".venv/bin/activate"  # typed by tests/system/test_newcomer.py
        case ["uvicorn", *rest]:
            uvicorn.main.make_context("uvicorn", rest).close()
        case ["chainlit", *rest]:
            assert chainlit_accepts(rest)
        case _:
            assert line in NOT_RUN, "nothing here tells whether this command is right"


@cache
def options_of_chainlit(command: str) -> set[str]:
    """The options that Chainlit's help shows for a command; in a process, for it writes where it is."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "chainlit", command, "--help"],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=60,
            check=True,
        )
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", done.stdout))


def chainlit_accepts(words: list[str]) -> bool:
    """Whether Chainlit has this command with these options."""
    command, *rest = words
    return {word for word in rest if word.startswith("-")} <= options_of_chainlit(command)


@pytest.mark.parametrize("line", NOT_RUN)
def test_what_is_not_run_is_on_a_page(line: str) -> None:
    """The list of what is checked otherwise holds nothing that nobody is told to type."""
    assert line in [typed for _, typed in commands()]


@pytest.mark.parametrize("piece", [p for p in found("span") if p.text.startswith("chainlit-proxy ")], ids=str)
def test_a_command_that_is_named_exists(piece: Piece) -> None:
    """The word behind the program's name is one of our commands."""
    assert piece.text.split()[1] in {*main.all(), "--version"}


def our_options() -> set[str]:
    """The options of all our commands."""
    return {
        option
        for command in main.all().values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }


def test_every_option_that_is_named_exists() -> None:
    """An option in the text is one of ours, or of a program that is known here."""
    known = our_options().union({"--help", "--version"}, *FOREIGN_OPTIONS.values())
    named = [
        (str(piece), word) for piece in found("span") for word in re.findall(r"(?<!\S)--[\w-]+", piece.text)
    ]
    assert named
    assert [pair for pair in named if pair[1] not in known] == []


def test_every_command_and_option_of_ours_is_shown() -> None:
    """The pages show each command and each option at least once."""
    text = "".join(f"{line} \n" for _, line in commands())
    assert [name for name in main.all() if f"chainlit-proxy {name} " not in text] == []
    shown = set(re.findall(r"(?<!\S)--?[\w-]+", text)) | {piece.text.split()[0] for piece in found("span")}
    assert [option for option in our_options() if option not in shown and option != "--config"] == []


def test_every_variable_that_is_named_exists() -> None:
    """The environment variables of the command line and of the build are told, and no others."""
    ours = {
        str(parameter.envvar)
        for command in main.all().values()
        for parameter in command.params
        if parameter.envvar
    }
    named = {name for piece in found("span") for name in re.findall(r"\bCHAINLIT_PROXY_[A-Z_]+", piece.text)}
    assert named == ours | {hatch_build.SWITCH}
