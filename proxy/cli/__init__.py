"""The command line. Exit codes: 0 done, 1 it failed while running, 2 the user can put it right."""

import errno
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

import proxy
from proxy.build import BUILD
from proxy.cli.failing import fail


class _Entry(NamedTuple):
    """A command: the module that has it, loaded with it, and a summary of at most 45 characters."""

    module: str
    summary: str


# Who asks a running proxy needs nothing of what one consists of, and who asks for help needs no command.
_GROUPS = {
    "Run it": {
        "run": _Entry("serving", "Start instances of an app, and the proxy"),
        "serve": _Entry("serving", "Start the proxy for running instances"),
        "replica": _Entry("serving", "Start one instance that shares its sessions"),
        "check": _Entry("checking", "Check a configuration file"),
        "schema": _Entry("checking", "Print the JSON schema of that file"),
    },
    "Look": {
        "status": _Entry("views", "Show the backends"),
        "top": _Entry("top", "Show sessions and load of all backends, live"),
        "sessions": _Entry("views", "List the sessions"),
        "where": _Entry("views", "Show which backend holds a session"),
        "events": _Entry("views", "Show recent events"),
    },
    "Operate": {
        "drain": _Entry("actions", "Empty a backend without cutting anyone off"),
        "ready": _Entry("actions", "Put a backend back into service"),
        "maintenance": _Entry("actions", "Take a backend out of service at once"),
        "rollout": _Entry("actions", "Replace the replicas of run, one by one"),
        "reload": _Entry("actions", "Reload the configuration"),
        "hook": _Entry("hook", "Drain an instance from its own hook"),
    },
    "Examine": {
        "doctor": _Entry("doctor", "Examine a deployment from the outside"),
        "load": _Entry("loading", "Simulate users, and measure response times"),
    },
    "Shell": {
        "completion": _Entry("completion", "Print a script for the Tab key"),
        "version": _Entry("version", "Print the version and the build"),
    },
}
_COMMANDS = {name: entry for group in _GROUPS.values() for name, entry in group.items()}


class Commands(click.Group):
    """All commands; each is found when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As click.Group."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """As click.Group."""
        return self.all([cmd_name]).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click.Group; where there is no such command, with the one that was probably meant."""
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches  # noqa: PLC0415 - for a mistake alone

            for near in get_close_matches(name, _COMMANDS, 1):
                ctx.fail(f"No such command {name!r}. Did you mean {near!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click.Group; a full disk behind standard output ends the command with a line."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            fail(f"{error.filename or 'standard output'}: {error.strerror}", 1)

    def all(self, names: list[str] | None = None) -> dict[str, click.Command]:
        """The commands of these names, or all of them; one that is unknown is left out."""
        wanted = _COMMANDS if names is None else [name for name in names if name in _COMMANDS]
        return {name: getattr(import_module(f"proxy.cli.{_COMMANDS[name].module}"), name) for name in wanted}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click.Group, by what they are for."""
        widest = max(map(len, _COMMANDS))
        for title, commands in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{widest}}", entry.summary) for name, entry in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click.Group, without loading them all."""
        names = [name for name in sorted(_COMMANDS) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=_COMMANDS[name].summary.replace(",", "")) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(f"{proxy.__version__} ({BUILD})", "-V", "--version", prog_name="chainlit-proxy")
def main() -> None:
    """Make several Chainlit instances behave as one."""
