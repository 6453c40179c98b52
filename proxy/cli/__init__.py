"""The command line. Exit codes: 0 done, 1 it failed while running, 2 the user can put it right."""

from importlib import import_module

import click

import proxy
from proxy.build import BUILD

# The module of each command, loaded with it: who asks a running proxy needs nothing of what one consists of.
_MODULES = {
    "run": "serving",
    "serve": "serving",
    "replica": "serving",
    "check": "checking",
    "schema": "checking",
    "version": "version",
    "status": "actions",
    "drain": "actions",
    "ready": "actions",
    "maintenance": "actions",
    "rollout": "actions",
    "reload": "actions",
    "hook": "hook",
    "where": "views",
    "events": "views",
    "top": "views",
    "doctor": "doctor",
    "load": "loading",
}


class Commands(click.Group):
    """All commands; each is found when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As click.Group."""
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """As click.Group."""
        return self.all([cmd_name]).get(cmd_name)

    def all(self, names: list[str] | None = None) -> dict[str, click.Command]:
        """The commands of these names, or all of them; one that is unknown is left out."""
        wanted = _MODULES if names is None else [name for name in names if name in _MODULES]
        return {name: getattr(import_module(f"proxy.cli.{_MODULES[name]}"), name) for name in wanted}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(f"{proxy.__version__} ({BUILD})", "-V", "--version", prog_name="chainlit-proxy")
def main() -> None:
    """Make several Chainlit instances behave as one."""
