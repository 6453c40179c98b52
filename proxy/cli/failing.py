"""How a command ends that cannot do what it was asked for."""

import sys
from typing import NoReturn

import click

BAD_USE = 2
INTERRUPTED = 130  # as a shell tells of a command that Ctrl-C has ended


def fail(message: str, code: int = BAD_USE) -> NoReturn:
    """Say what is wrong, and end."""
    click.echo(message, err=True)
    sys.exit(code)
