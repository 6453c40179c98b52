"""The commands that look at a configuration, or tell what one may hold."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from proxy.cli.failing import fail
from proxy.cli.reading import CONFIG, FILE, defaults_of, one_file, read_for_run, read_for_serve, warn_of_names
from proxy.config import Config, ConfigError, dump
from proxy.config.load import NO_BACKEND, STDIN
from proxy.config.schema import schema as schema_of_all

_OF_RUN = "; a file for `run`, which makes its own backends, is checked with --for run"


@click.command()
@click.argument("named", metavar="[FILE]", type=FILE, required=False)
@CONFIG
@click.option(
    "--for",
    "command",
    type=click.Choice(["serve", "run"]),
    default="serve",
    show_default=True,
    help="The command that will read the file: for `run` it has no backends, and other defaults apply.",
)
@click.option("--print", "whole", is_flag=True, help="Print every key in effect, secrets masked.")
@click.option("--changed", is_flag=True, help="Print the keys that differ from the defaults, secrets masked.")
@click.option("--quiet", is_flag=True, help="Print only errors.")
def check(
    named: str | None, file: str | None, command: str, *, whole: bool, changed: bool, quiet: bool
) -> None:
    """Check a configuration file, and report whether it is valid.

    FILE is the configuration, `-` is standard input; without one it is proxy.yaml here.
    """
    if whole and changed:
        raise click.UsageError("--print and --changed exclude each other")
    file = one_file(named, file)
    try:
        config = read_for_run(file, {}, "", None) if command == "run" else read_for_serve(file, {})
    except ConfigError as error:
        fail("\n".join(map(str, _with_hint(error))))
    if not quiet:
        warn_of_names(config)
        _warn_of_files(config)
        click.echo(verdict(file, command, config), err=True)
    if whole or changed:
        click.echo(dump(config, defaults_of(command) if changed else None), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    click.echo(json.dumps(schema_of_all(), indent=2))


def verdict(file: str, command: str, config: Config) -> str:
    """What is said of a good file, in a line."""
    name = "standard input" if file == STDIN else file
    valid = "valid" if command == "serve" else f"valid for {command}"
    listens = ", ".join(map(str, config.listen))
    return f"{name} is {valid}: {' and '.join(_backends(command, config))}, listens on {listens}"


def _backends(command: str, config: Config) -> Iterator[str]:
    if command == "run":
        count = config.replicas.count
        yield f"{count} {'replica' if str(count) == '1' else 'replicas'}"
        return
    number = len(config.backends)
    if number or not config.discovery.parts():
        yield f"{number} {'backend' if number == 1 else 'backends'}"
    for index, source in enumerate(config.discovery.parts(), number):
        yield f"{'those' if index else 'backends'} of discovery.{source}"


def _with_hint(error: ConfigError) -> Iterator[object]:
    """The mistakes; one of them may be that the file is meant for another command."""
    for problem in error.problems:
        is_for_run = problem.message == NO_BACKEND
        yield replace(problem, message=NO_BACKEND + _OF_RUN) if is_for_run else problem


def _warn_of_files(config: Config) -> None:
    """Say what may come into being later."""
    file = config.discovery.file
    if file is not None and not Path(file).exists():
        click.echo(f"discovery.file: {file} does not exist (yet): until then it names no backends", err=True)
