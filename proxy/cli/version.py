"""The command that tells the version, as `--version` does."""

import click


@click.command()
@click.pass_context
def version(context: click.Context) -> None:
    """Print the version and the build."""
    main = context.find_root().command
    option = next(each for each in main.params if each.name == "version")
    assert option.callback
    option.callback(context, option, True)
