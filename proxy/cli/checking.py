"""The command that looks at a configuration."""

import click

from proxy.cli.failing import fail
from proxy.cli.reading import CONFIG, one_file, read_for_run, warn_of_names
from proxy.config import ConfigError, dump, load


@click.command()
@click.argument("named", metavar="[FILE]", required=False)
@CONFIG
@click.option(
    "--for",
    "command",
    type=click.Choice(["serve", "run"]),
    default="serve",
    show_default=True,
    help="The command that is to read the file: `run` has no backends, and other defaults.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but mistakes.")
def check(named: str | None, file: str | None, command: str, *, quiet: bool) -> None:
    """Validate a configuration and print it as it takes effect, secrets masked.

    FILE is the configuration, `-` is standard input; without one it is proxy.yaml here.
    """
    file = one_file(named, file)
    try:
        config = read_for_run(file, {}, "", None) if command == "run" else load(file, need_backends=True)
    except ConfigError as error:
        fail(str(error))
    if not quiet:
        warn_of_names(config)
        click.echo(dump(config), nl=False)
