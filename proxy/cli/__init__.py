"""The command line. Exit codes: 0 done, 1 it failed while running, 2 the user can put it right."""

import click

import proxy
from proxy.cli.looking import events, top, where
from proxy.cli.operating import drain, maintenance, ready, reload, rollout, status
from proxy.cli.serving import check, replica, run, serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(proxy.__version__, prog_name="chainlit-proxy")
def main() -> None:
    """Make several Chainlit instances behave as one."""


for _command in (
    run,
    serve,
    replica,
    check,
    status,
    drain,
    ready,
    maintenance,
    rollout,
    reload,
    where,
    events,
    top,
):
    main.add_command(_command)
